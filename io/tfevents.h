#ifndef TESSERA_IO_TFEVENTS_H_
#define TESSERA_IO_TFEVENTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Scalars for TensorBoard: a file of TFRecords, each a protobuf Event written by hand. A record is
// length (uint64), masked CRC-32C of the length, the event, masked CRC-32C of the event, all
// little-endian. Every Write appends whole records and hands them to the system at once, so that a
// reader beside the run sees them and a killed run loses none.
class EventWriter {
 public:
  using Scalar = std::pair<std::string, double>;  // tag, value (stored as float)

  // Makes a file in `folder`, or continues the one that an earlier run of it left: what comes at
  // `from_step` or later, and a record that a kill cut short, is dropped from it first.
  static absl::StatusOr<EventWriter> Open(const std::string& folder, int64_t from_step = 0);
  EventWriter(EventWriter&& other) noexcept;
  EventWriter& operator=(EventWriter&&) = delete;
  ~EventWriter();

  // One event with all scalars of a step; `wall_time_s` is in seconds since 1970.
  absl::Status Write(int64_t step, double wall_time_s, std::span<const Scalar> scalars);
  const std::string& path() const { return path_; }

 private:
  EventWriter(std::string path, int descriptor);
  std::string path_;
  int descriptor_;
};

// CRC-32C (Castagnoli, reflected 0x82f63b78) of the bytes: 0xe3069283 for "123456789".
uint32_t Crc32c(absl::string_view bytes);

}  // namespace tessera

#endif  // TESSERA_IO_TFEVENTS_H_
