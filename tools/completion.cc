#include <cstdio>

#include "arch/registry.h"
#include "config/fields.h"
#include "tools/command.h"
#include "train/ready_configs.h"
#include "train/run_config.h"

// Shell completion, written from the tables that the program itself parses with: subcommands and
// options, the choices of an option, block and config names, the keys of a config.

namespace tessera {
namespace {

// "TEXT:{auto,cpu,cuda}" -> auto cpu cuda.
std::vector<std::string> Choices(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.find('}', open);
  std::vector<std::string> words;
  if (open == std::string::npos || close == std::string::npos) return words;
  std::string word;
  for (size_t i = open + 1; i <= close; ++i) {
    if (type[i] == ',' || type[i] == '}') {
      words.push_back(word);
      word.clear();
    } else {
      word += type[i];
    }
  }
  return words;
}

void AddKeys(const std::string& prefix, const std::vector<Field>& fields,
             std::vector<std::string>* words) {
  for (const Field& f : fields) {
    if (f.nested.empty()) {
      words->push_back(prefix + f.key + "=");
    } else {
      AddKeys(prefix + f.key + ".", f.nested, words);
    }
  }
}

// What may stand where an argument without a name is expected, beside a file.
std::vector<std::string> Words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* sub : app.get_subcommands({})) words.push_back(sub->get_name());
  for (const CLI::Option* o : app.get_options()) {
    if (!o->get_positional()) continue;
    const std::string name = o->get_name(true);
    if ((app.get_name() == "blocks" && name == "name") || name == "what")
      for (const BlockType* t : AllBlocks()) words.push_back(t->name);
    if ((app.get_name() == "configs" && name == "name") || name == "what" || name == "config")
      for (const ReadyConfig& c : ReadyConfigs()) words.push_back(c.name);
    if (name == "overrides") {
      TrainConfig train;
      ModelConfig model;
      FieldList train_keys, model_keys;
      train.Fields(train_keys);
      model.Fields(model_keys);
      AddKeys("train.", train_keys.all(), &words);
      AddKeys("model.", model_keys.all(), &words);
    }
  }
  return words;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& w : words) line += (line.empty() ? "" : " ") + w;
  return line;
}

// Every command with its path: "", "/train", "/tokenizer/train".
void Walk(const CLI::App& app, const std::string& path,
          std::vector<std::pair<std::string, const CLI::App*>>* all) {
  all->emplace_back(path, &app);
  for (const CLI::App* sub : app.get_subcommands({})) Walk(*sub, path + "/" + sub->get_name(), all);
}

void PrintBash(const std::vector<std::pair<std::string, const CLI::App*>>& all) {
  std::printf(
      "_tessera() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at= w words=\n"
      "  for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case $at/$w in\n");
  for (const auto& [path, app] : all)
    if (!path.empty()) std::printf("      %s) at=%s ;;\n", path.c_str(), path.c_str());
  std::printf("    esac\n  done\n  case \"$at $prev\" in\n");
  for (const auto& [path, app] : all)
    for (const CLI::Option* o : app->get_options())
      for (const std::string& name : o->get_lnames())
        if (const auto choices = Choices(*o); !choices.empty())
          std::printf("    '%s --%s') COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                      path.c_str(), name.c_str(), Joined(choices).c_str());
  std::printf("  esac\n  if [[ $cur == -* ]]; then\n    case $at in\n");
  for (const auto& [path, app] : all) {
    std::vector<std::string> names;
    for (const CLI::Option* o : app->get_options())
      for (const std::string& name : o->get_lnames()) names.push_back("--" + name);
    std::printf("      '%s') words='%s' ;;\n", path.c_str(), Joined(names).c_str());
  }
  std::printf(
      "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n    return\n  fi\n"
      "  case $at in\n");
  for (const auto& [path, app] : all)
    std::printf("    '%s') words='%s' ;;\n", path.c_str(), Joined(Words(*app)).c_str());
  std::printf(
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\") $(compgen -f -- \"$cur\"))\n"
      "  [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *= ]] && compopt -o nospace 2>/dev/null\n"
      "  return 0\n}\n"
      "complete -o filenames -F _tessera tessera\n");
}

std::string Quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text)
    out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "'";
}

void PrintFish(const std::vector<std::pair<std::string, const CLI::App*>>& all) {
  for (const auto& [path, app] : all) {
    // Seen: the last command of the path; not yet seen: any below it.
    const std::string last = path.substr(path.rfind('/') + 1);
    std::string when =
        path.empty() ? "__fish_use_subcommand" : "__fish_seen_subcommand_from " + last;
    if (path.rfind('/') != 0 && !path.empty())
      when += "; and __fish_seen_subcommand_from " + path.substr(1, path.rfind('/') - 1);
    for (const CLI::App* sub : app->get_subcommands({}))
      std::printf("complete -c tessera -f -n %s -a %s -d %s\n", Quoted(when).c_str(),
                  sub->get_name().c_str(), Quoted(sub->get_description()).c_str());
    for (const CLI::Option* o : app->get_options())
      for (const std::string& name : o->get_lnames()) {
        const std::string choices = Joined(Choices(*o));
        std::printf("complete -c tessera -n %s -l %s -d %s%s%s\n", Quoted(when).c_str(),
                    name.c_str(), Quoted(o->get_description()).c_str(),
                    o->get_expected_max() == 0 ? "" : " -r",
                    choices.empty() ? "" : (" -a " + Quoted(choices)).c_str());
      }
    if (const auto words = Words(*app); app->get_subcommands({}).empty() && !words.empty())
      std::printf("complete -c tessera -n %s -a %s\n", Quoted(when).c_str(),
                  Quoted(Joined(words)).c_str());
  }
}

}  // namespace

void AddCompletion(CLI::App* app, int* code) {
  auto shell = std::make_shared<std::string>();
  CLI::App* c = app->add_subcommand("completion", "print a script that completes commands");
  c->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  c->footer(
      "Examples:\n  source <(tessera completion bash)\n  source <(tessera completion zsh)\n"
      "  tessera completion fish | source");
  c->callback([=] {
    std::vector<std::pair<std::string, const CLI::App*>> all;
    Walk(*app, "", &all);
    if (*shell == "fish") {
      PrintFish(all);
    } else {
      // bashcompinit's `complete` needs compdef, which only compinit defines.
      if (*shell == "zsh")
        std::printf(
            "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }\n"
            "autoload -Uz bashcompinit && bashcompinit\n");
      PrintBash(all);
    }
    *code = 0;
  });
}

}  // namespace tessera
