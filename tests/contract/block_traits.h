#ifndef TESSERA_TESTS_CONTRACT_BLOCK_TRAITS_H_
#define TESSERA_TESTS_CONTRACT_BLOCK_TRAITS_H_

#include <string>

#include "tests/contract/block_run.h"

namespace tessera::testing {

// What is wrong with what a block says of itself, a line each: an exception that it claims and that
// does not happen, or one that happens and that it does not claim.
std::string FalseTraits(Subject& s);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONTRACT_BLOCK_TRAITS_H_
