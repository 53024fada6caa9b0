#ifndef TESSERA_DATA_BPE_FILE_H_
#define TESSERA_DATA_BPE_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "data/bpe.h"

namespace tessera {

// The part of Hugging Face's tokenizer.json that describes a byte-level BPE, so that other tools
// read our tokenizers and we read theirs: model BPE, a Split pattern with ByteLevel (or ByteLevel
// alone, GPT-2's pattern), no normaliser, added tokens that stand for exactly their text. Bytes are
// spelt as GPT-2 spells them: printable Latin-1 as itself, the others from U+0100 on; added tokens
// are spelt as they are. What the file asks beyond this is an error, never ignored; so are repeated
// tokens or ids, holes, and merges of unknown tokens. A post-processor, which would put tokens
// around a text, is of no use here: a text is encoded as it is.
std::string WriteBpeJson(const BpeModel& model);
absl::StatusOr<BpeModel> ReadBpeJson(absl::string_view json, absl::string_view where);
absl::StatusOr<BpeModel> ReadBpeFile(const std::string& path);

}  // namespace tessera

#endif  // TESSERA_DATA_BPE_FILE_H_
