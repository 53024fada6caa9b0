#include "io/tfevents.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>

#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

// CRC-32C again, by dividing bit after bit through the polynomial, highest degree first.
uint32_t CrcByDivision(const std::string& bytes) {
  const auto reflected = [](uint32_t value, int bits) {
    uint32_t result = 0;
    for (int i = 0; i < bits; ++i) result |= ((value >> i) & 1u) << (bits - 1 - i);
    return result;
  };
  uint32_t remainder = 0xffffffffu;
  for (const char c : bytes) {
    remainder ^= reflected(static_cast<uint8_t>(c), 8) << 24;
    for (int bit = 0; bit < 8; ++bit)
      remainder = (remainder & 0x80000000u) != 0 ? (remainder << 1) ^ 0x1edc6f41u : remainder << 1;
  }
  return ~reflected(remainder, 32);
}

template <class Word>
Word Take(std::string& bytes) {
  Word word;
  EXPECT_GE(bytes.size(), sizeof(word));
  std::memcpy(&word, bytes.data(), sizeof(word));
  bytes.erase(0, sizeof(word));
  return word;
}

uint64_t TakeVarint(std::string& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const uint8_t byte = Take<uint8_t>(bytes);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

std::string TakeBytes(std::string& bytes) {
  const size_t length = TakeVarint(bytes);
  const std::string value = bytes.substr(0, length);
  bytes.erase(0, length);
  return value;
}

struct Event {
  double wall_time_s = 0;
  int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
};

Event ParseEvent(std::string bytes) {
  Event event;
  while (!bytes.empty()) {
    switch (TakeVarint(bytes)) {
      case 1 << 3 | 1:
        event.wall_time_s = Take<double>(bytes);
        break;
      case 2 << 3 | 0:
        event.step = static_cast<int64_t>(TakeVarint(bytes));
        break;
      case 3 << 3 | 2:
        event.file_version = TakeBytes(bytes);
        break;
      case 5 << 3 | 2: {
        std::string summary = TakeBytes(bytes);
        while (!summary.empty()) {
          EXPECT_EQ(TakeVarint(summary), 1u << 3 | 2);
          std::string value = TakeBytes(summary);
          EXPECT_EQ(TakeVarint(value), 1u << 3 | 2);
          const std::string tag = TakeBytes(value);
          EXPECT_EQ(TakeVarint(value), 2u << 3 | 5);
          event.scalars[tag] = Take<float>(value);
          EXPECT_TRUE(value.empty());
        }
        break;
      }
      default:
        ADD_FAILURE() << "an unknown field";
        return event;
    }
  }
  return event;
}

// The events of a file, each record checked with the other CRC.
std::vector<Event> ReadEvents(const std::string& path) {
  const auto masked = [](const std::string& bytes) {
    return std::rotr(CrcByDivision(bytes), 15) + 0xa282ead8u;
  };
  std::string bytes = *ReadFile(path);
  std::vector<Event> events;
  while (!bytes.empty()) {
    const std::string length_bytes = bytes.substr(0, 8);
    const uint64_t length = Take<uint64_t>(bytes);
    EXPECT_EQ(Take<uint32_t>(bytes), masked(length_bytes));
    const std::string event = bytes.substr(0, length);
    bytes.erase(0, length);
    EXPECT_EQ(Take<uint32_t>(bytes), masked(event));
    events.push_back(ParseEvent(event));
  }
  return events;
}

std::vector<int64_t> StepsOf(const std::string& path) {
  std::vector<int64_t> steps;
  for (const Event& event : ReadEvents(path)) steps.push_back(event.step);
  return steps;
}

TEST(TfEvents, Crc32cIsTheOneOfTheStandard) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);            // RFC 3720's check value
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(CrcByDivision("123456789"), 0xe3069283u);
}

TEST(TfEvents, HoldWhatWasWritten) {
  const TemporaryFolder folder;
  EventWriter writer = *EventWriter::Open(folder.path(""));
  const EventWriter::Scalar first[] = {{"loss", 5.545177444}, {"layers[0].moe/load", 0.25}};
  const EventWriter::Scalar second[] = {{"loss", 4}};
  ASSERT_TRUE(writer.Write(1, 1700000000.5, first).ok());
  ASSERT_TRUE(writer.Write(300'000'000'000, 1700000001, second).ok());
  const std::vector<Event> events = ReadEvents(writer.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[1].wall_time_s, 1700000000.5);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[1].scalars,
            (std::map<std::string, float>{{"loss", 5.545177444f}, {"layers[0].moe/load", 0.25f}}));
  EXPECT_EQ(events[2].step, 300'000'000'000);
}

TEST(TfEvents, AResumedRunContinuesTheFile) {
  const TemporaryFolder folder;
  std::string path;
  {
    EventWriter writer = *EventWriter::Open(folder.path(""));
    path = writer.path();
    for (int64_t step = 0; step < 200; ++step)
      ASSERT_TRUE(writer.Write(step, 1, std::vector<EventWriter::Scalar>{{"loss", 1}}).ok());
  }
  {
    EventWriter writer = *EventWriter::Open(folder.path(""), 150);
    EXPECT_EQ(writer.path(), path);
    ASSERT_TRUE(writer.Write(150, 1, {}).ok());
  }
  std::vector<int64_t> want = {0};
  for (int64_t step = 0; step <= 150; ++step) want.push_back(step);
  EXPECT_EQ(StepsOf(path), want);
}

TEST(TfEvents, ARecordThatAKillCutIsDropped) {
  const TemporaryFolder folder;
  std::string path;
  {
    EventWriter writer = *EventWriter::Open(folder.path(""));
    path = writer.path();
    for (int64_t step = 0; step < 3; ++step) ASSERT_TRUE(writer.Write(step, 1, {}).ok());
  }
  const std::string whole = *ReadFile(path);
  for (size_t n = 0; n < whole.size(); n += 3) {
    ASSERT_TRUE(AtomicWrite(path, whole.substr(0, n)).ok());
    ASSERT_TRUE(EventWriter::Open(folder.path(""), 9)->Write(9, 1, {}).ok());
    EXPECT_EQ(StepsOf(path).back(), 9) << n;
  }
}

TEST(TfEvents, AFolderThatIsNotThereIsAnError) {
  EXPECT_EQ(EventWriter::Open("/nowhere").status().message(),
            "cannot open the folder /nowhere: No such file or directory (ENOENT)");
}

}  // namespace
}  // namespace tessera
