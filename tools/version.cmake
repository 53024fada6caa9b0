# cmake -D SOURCE=.. -D VERSION=.. -D OUT=.. -P tools/version.cmake: writes the version and, in a
# checkout, its commit into a source file, which stays untouched where nothing changed.
set(commit "")
execute_process(COMMAND git -C ${SOURCE} rev-parse --show-toplevel
                OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(top STREQUAL SOURCE)
  execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[
namespace tessera {
extern const char kVersion[], kCommit[];
const char kVersion[] = "@VERSION@", kCommit[] = "@commit@";
}  // namespace tessera
]])
