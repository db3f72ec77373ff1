// uio-guest: a vmbfs client on a device that Linux's uio_hv_generic drives.
//
//   uio-guest imc|boot ACTION…
//     read NAME FILE        reads a file of the device into FILE
//     repeat COUNT NAME     reads it COUNT times; all must be the same
//     exists PATH           waits until the guest has this path
//     garbage               overwrites the ring to the host
//     answer                waits for whatever the host says
//
// All actions go over one open of the channel. Exit codes: 0 done, 1 failed (the reason on
// stderr), 2 usage.

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/real_guest/guest/uio_channel.h"

namespace real_guest {
namespace {

using Bytes = std::vector<std::byte>;

// shared/specs/vmbfs.md.
constexpr uint32_t kVersion = 0x00010000;
constexpr size_t kReadBytesMax = 12'276;
enum Type : uint32_t { kVersionRequest = 1, kInfoRequest = 3, kReadRequest = 5 };

void Append(Bytes& message, const auto& number) {
  const auto bytes = std::as_bytes(std::span(&number, 1));
  message.insert(message.end(), bytes.begin(), bytes.end());
}

// The request's type is answered by the next one.
Bytes Ask(UioChannel& channel, Type type, const Bytes& body) {
  Bytes message;
  Append(message, uint64_t{type});
  message.insert(message.end(), body.begin(), body.end());
  channel.Send(message);
  const Bytes answer = channel.Receive();
  uint64_t header = 0;
  if (answer.size() < sizeof(header) + sizeof(uint32_t)) Fail("a short answer");
  std::memcpy(&header, answer.data(), sizeof(header));
  if (header != uint64_t{type} + 1) Fail("an answer of type " + std::to_string(header));
  uint32_t status = 0;
  std::memcpy(&status, answer.data() + sizeof(header), sizeof(status));
  if (status != 0) Fail("the device answered with status " + std::to_string(status));
  return Bytes(answer.begin() + sizeof(header) + sizeof(status), answer.end());
}

void AppendPath(Bytes& message, std::string_view path) {
  for (const char character : path) Append(message, static_cast<uint16_t>(character));
}

uint64_t FileBytes(UioChannel& channel, std::string_view path) {
  Bytes request;
  AppendPath(request, path);
  const Bytes info = Ask(channel, kInfoRequest, request);
  uint64_t bytes = 0;
  if (info.size() != sizeof(uint32_t) + sizeof(bytes)) Fail("an info of another size");
  std::memcpy(&bytes, info.data() + sizeof(uint32_t), sizeof(bytes));
  return bytes;
}

Bytes ReadFile(UioChannel& channel, std::string_view path) {
  const uint64_t size = FileBytes(channel, path);
  Bytes content;
  while (content.size() < size) {
    Bytes request;
    Append(request, static_cast<uint32_t>(kReadBytesMax));
    Append(request, uint64_t{content.size()});
    AppendPath(request, path);
    const Bytes data = Ask(channel, kReadRequest, request);
    if (data.empty() || data.size() > size - content.size()) Fail("a read of a wrong size");
    content.insert(content.end(), data.begin(), data.end());
  }
  return content;
}

void ReadInto(UioChannel& channel, const std::string& name, const std::string& path) {
  const Bytes content = ReadFile(channel, name);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()),
             static_cast<std::streamsize>(content.size()));
  if (!file.flush()) Fail(path + ": cannot be written");
  std::cout << name << ": " << content.size() << " bytes" << std::endl;
}

void Repeat(UioChannel& channel, size_t count, const std::string& name) {
  const Bytes first = ReadFile(channel, name);
  for (size_t pass = 1; pass < count; ++pass) {
    if (ReadFile(channel, name) != first) {
      Fail(name + ": pass " + std::to_string(pass) + " read something else");
    }
  }
  std::cout << name << ": " << count << " passes" << std::endl;
}

void WaitUntilExists(const std::string& path) {
  while (access(path.c_str(), F_OK) != 0) usleep(20'000);
}

class Arguments {
 public:
  explicit Arguments(std::span<char*> words) : words_(words) {}
  bool empty() const { return words_.empty(); }
  std::string Next() {
    if (empty()) Fail("an argument is missing");
    std::string word = words_.front();
    words_ = words_.subspan(1);
    return word;
  }

 private:
  std::span<char*> words_;
};

void Run(Arguments arguments) {
  const std::string device = arguments.Next();
  UioChannel channel(device == "boot" ? "c63c9bdf-5fa5-4208-b03f-6b458b365592"
                                      : "c4e5e7d1-d748-4afc-979d-683167910a55");
  Bytes version;
  Append(version, kVersion);
  Ask(channel, kVersionRequest, version);
  while (!arguments.empty()) {
    const std::string action = arguments.Next();
    if (action == "read") {
      const std::string name = arguments.Next();
      ReadInto(channel, name, arguments.Next());
    } else if (action == "repeat") {
      const size_t count = std::stoul(arguments.Next());
      Repeat(channel, count, arguments.Next());
    } else if (action == "exists") {
      WaitUntilExists(arguments.Next());
    } else if (action == "garbage") {
      channel.WriteGarbage();
    } else if (action == "answer") {
      channel.Receive();
    } else {
      Fail("no action is called " + action);
    }
  }
}

}  // namespace
}  // namespace real_guest

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: uio-guest imc|boot ACTION...\n";
    return 2;
  }
  real_guest::Run(real_guest::Arguments(std::span(argv + 1, argv + argc)));
  return 0;
}
