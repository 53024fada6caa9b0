#ifndef TESSERA_CORE_CHECK_H_
#define TESSERA_CORE_CHECK_H_

// A programmer's mistake stops the program with the values that show it. A person's mistake (input,
// config, file) is an absl::Status instead, and never comes this way.

namespace tessera {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const char* format,
                              ...) __attribute__((format(printf, 4, 5)));
}  // namespace tessera

#define TESSERA_CHECK(condition, ...)                                      \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::tessera::CheckFailed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
  } while (false)

#endif  // TESSERA_CORE_CHECK_H_
