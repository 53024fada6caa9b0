#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>

#include "core/check_error.h"
#include "tools/command.h"

// How the program ends: what was thrown, and whether its output was written.

namespace tessera {
namespace {

struct Ending {
  std::string message;
  int code;
};

// What was thrown, in words that say what to do. From the particular to the general.
Ending EndingOf(const std::exception_ptr& thrown) {
  const std::string bug =
      "\nThis is a bug in Tessera, not in what you asked for: please report it with this message, "
      "the command line, the config and `tessera --version`";
  try {
    std::rethrow_exception(thrown);
  } catch (const SizeError& e) {
    return {e.what(), kMistake};
  } catch (const CudaError& e) {
    return {std::string("the GPU failed: ") + e.what(), kFailed};
  } catch (const CheckError& e) {
    return {e.what() + bug, kBug};
  } catch (const std::bad_alloc&) {
    return {
        "out of memory: the system refused some; use a smaller model, batch or sequence, or "
        "raise the limit (ulimit -v, the container's)",
        kFailed};
  } catch (const std::system_error& e) {
    const bool again = e.code() == std::errc::resource_unavailable_try_again;
    return {std::string(e.what()) +
                (again ? "; the system starts no more threads: use fewer (--threads), or raise the "
                         "limit (ulimit -u, the container's)"
                       : ""),
            kFailed};
  } catch (const std::runtime_error& e) {
    return {e.what(), kFailed};
  } catch (const std::exception& e) {
    return {std::string("unforeseen: ") + e.what() + bug, kBug};
  } catch (...) {
    return {"unforeseen: something that is no exception was thrown" + bug, kBug};
  }
}

int output_error = 0;  // the first reason why standard output could not be written

int Tell(const Ending& ending) {
  std::fprintf(stderr, "tessera: %s\n", ending.message.c_str());
  return ending.code;
}

// Whether nobody reads a pipe any more; false for anything else.
bool ReaderGone() {
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

}  // namespace

int RunGuarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (...) {
    return Tell(EndingOf(std::current_exception()));
  }
}

void CatchAll() {
  std::set_terminate([] {
    const std::exception_ptr thrown = std::current_exception();
    const Ending ending =
        thrown ? EndingOf(thrown) : Ending{"unforeseen: std::terminate without an exception", kBug};
    _exit(Tell(ending));
  });
}

void PrepareStreams() {
  // A reader that is gone, and a limit on the size of files, are errors of the write that meets
  // them.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  // Open the other way round, so that reading or writing them fails; messages may be lost.
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
  for (int fd = 0; fd < 3; ++fd)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      const int opened = open("/dev/null", kModes[fd]);
      if (opened >= 0 && opened != fd) close(opened);
    }
}

bool OutputLost() {
  errno = 0;
  if (std::fflush(stdout) != 0 && output_error == 0) output_error = errno;
  return std::ferror(stdout) != 0;
}

int CloseOutput(int code) {
  bool failed = OutputLost();
  int error = output_error;
  // The write that failed may have been the library's own, whose reason is gone.
  if (failed && error == 0 && write(STDOUT_FILENO, "", 0) < 0) error = errno;
  const bool reader_gone = error == EPIPE || (failed && ReaderGone());
  if (close(STDOUT_FILENO) != 0 && !failed) {
    failed = true;
    error = errno;
  }
  if (!failed || code != kDone) return code;
  if (reader_gone) return kReaderGone;
  const char* const reason = error == EBADF ? "it is closed" : std::strerror(error);
  std::fprintf(stderr,
               "tessera: standard output cannot be written%s%s; what stands there is not "
               "whole\n",
               error == 0 ? "" : ": ", error == 0 ? "" : reason);
  return kFailed;
}

}  // namespace tessera
