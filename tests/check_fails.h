#ifndef TESSERA_TESTS_CHECK_FAILS_H_
#define TESSERA_TESTS_CHECK_FAILS_H_

#include <gtest/gtest.h>

#include <string>

#include "core/check_error.h"

namespace tessera::testing {

// f() must come to a TESSERA_CHECK that does not hold and whose message has `says` in it.
template <class F>
void ExpectCheckFails(F&& f, const std::string& says) {
  try {
    f();
    ADD_FAILURE() << "no check failed: " << says;
  } catch (const CheckError& e) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, says, std::string(e.what()));
  }
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CHECK_FAILS_H_
