#include "benchmarks/sampling.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <system_error>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

constexpr double kShortestSampleUs = 100;

double wall_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

double thread_cpu_us() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorKind::kIo, what + ": " + std::generic_category().message(errno));
}

// What the child writes first.
constexpr char kReturned = 'r';
constexpr char kThrew = 't';

[[noreturn]] void run_as_child(int pipe_end, const std::function<std::string()>& work) {
  std::string text;
  try {
    text = kReturned + work();
  } catch (const std::exception& error) {
    text = kThrew + std::string(error.what());
  }
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = write(pipe_end, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR) _exit(1);
    if (written > 0) done += static_cast<std::size_t>(written);
  }
  _exit(0);
}

std::string read_to_end(int pipe_end) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = read(pipe_end, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("reading from a measuring process");
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

Quantiles quantiles_of(std::vector<double> samples) {
  if (samples.empty()) throw std::invalid_argument("quantiles of no samples");
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double part) {
    return samples[static_cast<std::size_t>(std::lround(part * static_cast<double>(samples.size() - 1)))];
  };
  return {at(0.1), at(0.5), at(0.9)};
}

Elapsed time_once(const std::function<void()>& call) {
  // The first reading of a clock in a process takes tens of microseconds, which are not the call's.
  thread_cpu_us();
  wall_us();
  const double cpu_begin = thread_cpu_us();
  const double wall_begin = wall_us();
  call();
  const double wall = wall_us() - wall_begin;
  return {wall, thread_cpu_us() - cpu_begin};
}

std::vector<Elapsed> time_repeatedly(const std::function<void(std::size_t)>& call, std::size_t num_inputs,
                                     double seconds) {
  const double end = wall_us() + seconds * 1e6;
  std::vector<Elapsed> samples;
  std::size_t num_calls = 0;
  std::size_t calls_per_sample = 1;
  while (samples.empty() || wall_us() < end || num_calls < 2 * num_inputs) {
    const Elapsed elapsed = time_once([&] {
      for (std::size_t index = 0; index < calls_per_sample; ++index) call((num_calls + index) % num_inputs);
    });
    num_calls += calls_per_sample;
    if (elapsed.wall_us < kShortestSampleUs) {
      calls_per_sample *= 2;  // and this one, too short, is dropped
      continue;
    }
    const auto count = static_cast<double>(calls_per_sample);
    samples.push_back({elapsed.wall_us / count, elapsed.cpu_us / count});
  }
  return samples;
}

std::string in_own_process(const std::function<std::string()>& work) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) fail("pipe to a measuring process");
  std::fflush(nullptr);  // or the child's copy of the buffers would be written a second time
  const pid_t child = fork();
  if (child < 0) fail("starting a measuring process");
  if (child == 0) {
    close(ends[0]);
    run_as_child(ends[1], work);
  }
  close(ends[1]);
  const std::string text = read_to_end(ends[0]);
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail("waiting for a measuring process");
  }
  if (WIFSIGNALED(status)) {
    throw Error(ErrorKind::kIo,
                "a measuring process was ended by signal " + std::to_string(WTERMSIG(status)));
  }
  if (text.empty()) throw Error(ErrorKind::kIo, "a measuring process returned nothing");
  if (text.front() == kThrew) throw Error(ErrorKind::kIo, text.substr(1));
  return text.substr(1);
}

}  // namespace aurora::bench
