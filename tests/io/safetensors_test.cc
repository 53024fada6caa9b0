#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using ::testing::IsSubstring;

// Opens a file with these bytes. Nothing in it may crash the reader; its message comes back.
class Reader {
 public:
  std::string Error(const std::string& bytes) const {
    EXPECT_TRUE(WriteQuickly(bytes));
    std::string message(SafetensorsFile::Open(path_).status().message());
    for (size_t at; (at = message.find(path_)) != message.npos;)
      message.replace(at, path_.size(), "F");
    return message;
  }
  // The same for a header with its length before it and `data_bytes` zeros behind it.
  std::string HeaderError(const std::string& header, size_t data_bytes) const {
    return Error(File(header, data_bytes));
  }
  static std::string File(const std::string& header, size_t data_bytes) {
    const uint64_t length = header.size();
    std::string bytes(reinterpret_cast<const char*>(&length), 8);
    return bytes + header + std::string(data_bytes, '\0');
  }
  const std::string& path() const { return path_; }

 private:
  // Thousands of files are tried: a new one each time and no syncing.
  bool WriteQuickly(const std::string& bytes) const {
    remove(path_.c_str());
    FILE* file = fopen(path_.c_str(), "wb");
    const bool good = fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    return fclose(file) == 0 && good;
  }
  TemporaryFolder folder_;
  std::string path_ = folder_.path("x.safetensors");
};

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::string path = folder.path("x.safetensors");
  const float f32[] = {1, 2, 3, 4, 5, 6};
  const uint16_t half[] = {7, 8, 9};
  const int64_t i64[] = {-1};
  const uint8_t u8[] = {250};
  const std::vector<TensorView> tensors = {
      {"u8", DType::kU8, {1, 1}, u8, 1},         {"f32", DType::kF32, {2, 3}, f32, 24},
      {"bf16", DType::kBF16, {3}, half, 6},      {"f16", DType::kF16, {3, 1}, half, 6},
      {"scalar", DType::kI64, {}, i64, 8},       {"i32", DType::kI32, {6}, f32, 24},
      {"empty", DType::kF32, {0, 5}, nullptr, 0}};
  ASSERT_TRUE(WriteSafetensors(path, tensors, {{"format", "tessera"}, {"ünï", "\n\""}}).ok());
  const SafetensorsFile file = *SafetensorsFile::Open(path);
  EXPECT_EQ(file.metadata().at("format"), "tessera");
  EXPECT_EQ(file.metadata().at("ünï"), "\n\"");
  EXPECT_EQ(file.tensors().size(), tensors.size());
  for (const TensorView& want : tensors) {
    const TensorView* got = file.Find(want.name);
    ASSERT_NE(got, nullptr) << want.name;
    EXPECT_EQ(got->dtype, want.dtype);
    EXPECT_EQ(got->shape, want.shape);
    ASSERT_EQ(got->bytes, want.bytes);
    EXPECT_TRUE(want.bytes == 0 ||
                std::memcmp(got->data, want.data, static_cast<size_t>(want.bytes)) == 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(got->data) % static_cast<size_t>(SizeOf(want.dtype)), 0u);
  }
  EXPECT_EQ(file.Find("absent"), nullptr);
}

TEST(Safetensors, TheHeaderIsSortedAndPadded) {
  const TemporaryFolder folder;
  const uint64_t data[2] = {};
  ASSERT_TRUE(
      WriteSafetensors(folder.path("x"), std::vector<TensorView>{{"b", DType::kU8, {3}, data, 3},
                                                                 {"c", DType::kF32, {1}, data, 4},
                                                                 {"a", DType::kF32, {1}, data, 4}})
          .ok());
  const std::string bytes = *ReadFile(folder.path("x"));
  const std::string want = "{" + Tensor("a", "F32", "[1]", "[0,4]") + "," +
                           Tensor("c", "F32", "[1]", "[4,8]") + "," +
                           Tensor("b", "U8", "[3]", "[8,11]") + "}";
  EXPECT_EQ(bytes.substr(8, want.size()), want);
  EXPECT_EQ((bytes.size() - 11) % 8, 0u);
}

TEST(Safetensors, EveryTruncationAndAppendedByteIsAnError) {
  const Reader reader;
  const std::string good = Reader::File(
      "{" + Tensor("a", "F32", "[2]", "[0,8]") + "," + Tensor("b", "U8", "[1]", "[8,9]") + "}", 9);
  EXPECT_EQ(reader.Error(good), "");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_NE(reader.Error(good.substr(0, n)), "") << n;
  EXPECT_EQ(reader.Error(good + "x"),
            "F: the tensors have 9 bytes, but behind the header are 10; the file is cut or has "
            "something appended");
  EXPECT_EQ(reader.Error("1234567"), "F: the file has 7 bytes; a safetensors file has at least 8");
}

// A changed byte may still be a good file (a letter of a name); it must never be a crash.
TEST(Safetensors, NoChangedByteCrashesTheReader) {
  const Reader reader;
  const std::string good = Reader::File(
      "{\"__metadata__\":{\"k\":\"v\"}," + Tensor("a", "F32", "[2]", "[0,8]") + "}", 8);
  for (size_t at = 0; at + 8 < good.size(); ++at)
    for (const int change : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      reader.Error(bytes);
    }
}

TEST(Safetensors, LengthsOfTheHeader) {
  const Reader reader;
  const auto with_length = [&](uint64_t length) {
    return reader.Error(std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
  };
  EXPECT_EQ(with_length(2), "");
  EXPECT_EQ(with_length(3), "F: the header says it has 3 bytes, but the file has 10");
  EXPECT_EQ(with_length(0), "F: the header does not begin with '{'");
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}})
    EXPECT_EQ(with_length(length), absl::StrCat("F: the header says it has ", length,
                                                " bytes; at most 100000000 are possible"));
}

TEST(Safetensors, OffsetsTileTheData) {
  const Reader reader;
  const auto two = [&](const std::string& first, const std::string& second) {
    return reader.HeaderError(
        "{" + Tensor("a", "U8", "[4]", first) + "," + Tensor("b", "U8", "[4]", second) + "}", 8);
  };
  EXPECT_EQ(two("[0,4]", "[4,8]"), "");
  EXPECT_EQ(two("[4,8]", "[0,4]"), "");
  EXPECT_EQ(two("[0,4]", "[3,7]"), "F: the tensor 'b' begins at 3, but the one before ends at 4");
  EXPECT_EQ(two("[0,4]", "[5,9]"), "F: the tensor 'b' begins at 5, but the one before ends at 4");
  EXPECT_EQ(two("[0,4]", "[0,4]"), "F: the tensor 'b' begins at 0, but the one before ends at 4");
  EXPECT_EQ(two("[1,5]", "[5,9]"), "F: the tensor 'a' begins at 1, but the one before ends at 0");
  EXPECT_EQ(two("[4,0]", "[4,8]"),
            "F, tensor 'a': data_offsets [4, 0] hold -4 bytes, but U8 [4] has 4");
  EXPECT_PRED_FORMAT2(IsSubstring, "an integer from 0 to 281474976710655 is expected",
                      two("[0,18446744073709551615]", "[4,8]"));
  EXPECT_PRED_FORMAT2(IsSubstring, "'data_offsets' has 3 numbers; 2 are expected",
                      two("[0,4,8]", "[4,8]"));
}

TEST(Safetensors, ShapesDoNotOverflow) {
  const Reader reader;
  const auto shape = [&](const std::string& sizes, const std::string& end) {
    return reader.HeaderError("{" + Tensor("a", "F32", sizes, "[0," + end + "]") + "}", 4);
  };
  EXPECT_EQ(shape("[]", "4"), "");
  EXPECT_EQ(shape("[1,1,1,1,1,1,1,1]", "4"), "");
  EXPECT_EQ(shape("[4294967296,1073741825]", "4"),
            "F, tensor 'a': the shape [4294967296, 1073741825] has more bytes than can be counted");
  EXPECT_EQ(shape("[281474976710655,281474976710655,0]", "0"),
            "F, tensor 'a': the shape [281474976710655, 281474976710655, 0] has more bytes than "
            "can be counted");
  EXPECT_EQ(shape("[2]", "4"),
            "F, tensor 'a': data_offsets [0, 4] hold 4 bytes, but F32 [2] has 8");
  EXPECT_EQ(shape("[1,1,1,1,1,1,1,1,1]", "4"),
            "F, tensor 'a': 'shape' has 9 numbers; at most 8 are read");
  for (const char* sizes : {"[-1]", "[1.0]", "[1e0]", "[-0]", "[true]", "[\"1\"]", "[null]", "1"})
    EXPECT_NE(shape(sizes, "4"), "") << sizes;
}

TEST(Safetensors, TheHeaderSaysOneThingOnly) {
  const Reader reader;
  const auto error = [&](const std::string& header) { return reader.HeaderError(header, 4); };
  const std::string a = Tensor("a", "F32", "[1]", "[0,4]");
  EXPECT_EQ(error("{" + a + "}   "), "");
  EXPECT_EQ(error("{" + a + "," + a + "}"), "F: the key 'a' is given twice");
  EXPECT_EQ(error(" {" + a + "}"), "F: the header does not begin with '{'");
  EXPECT_PRED_FORMAT2(IsSubstring, "F: not valid JSON at byte", error("{" + a + "} {}"));
  EXPECT_EQ(error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}"),
            "F, tensor 'a': unknown key 'x' (known: dtype, shape, data_offsets)");
  EXPECT_EQ(error("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}"),
            "F, tensor 'a': the key 'dtype' is missing; it holds a string");
  EXPECT_EQ(error("{" + Tensor("a", "F8_E4M3", "[4]", "[0,4]") + "}"),
            "F, tensor 'a': dtype 'F8_E4M3' is not supported (F32, BF16, F16, I32, I64, U8)");
  EXPECT_EQ(error("{\"a\":7}"), "F, tensor 'a': an object is expected, not the number 7");
  EXPECT_EQ(error("{\"__metadata__\":{\"k\":1}," + a + "}"),
            "F, __metadata__: 'k' is the number 1; a string is expected");
  EXPECT_EQ(error("{\"__metadata__\":[]," + a + "}"),
            "F, __metadata__: an object is expected, not an array");
  EXPECT_PRED_FORMAT2(IsSubstring, "has 513 bytes; 1 to 512 without control characters",
                      error("{" + Tensor(std::string(513, 'n'), "F32", "[1]", "[0,4]") + "}"));
  EXPECT_EQ(error("{" + Tensor("a\\n", "F32", "[1]", "[0,4]") + "}"),
            "F: the tensor name 'a\\n' has 2 bytes; 1 to 512 without control characters are "
            "expected");
  EXPECT_EQ(error("{\"a\":[[[[1]]]]}"), "F: nested deeper than 4 levels");
  EXPECT_PRED_FORMAT2(IsSubstring, "F: not valid JSON", error("{\"a\xff\":{}}"));
}

}  // namespace
}  // namespace tessera
