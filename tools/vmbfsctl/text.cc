#include "tools/vmbfsctl/text.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/log/escape.h"

namespace vmbfs::ctl {
namespace {

constexpr size_t kDigestShownChars = 12;
constexpr size_t kEscapedBytesMax = 2048;

std::string LastPart(const std::string& name) { return name.substr(name.rfind('/') + 1); }

// Lines of `label: value`, with the values below each other.
class Lines {
 public:
  explicit Lines(size_t width) : width_(width) {}

  void Add(size_t indent, const std::string& label, const std::string& value) {
    const std::string head = absl::StrCat(std::string(indent, ' '), label, ":");
    const size_t gap = head.size() < width_ ? width_ - head.size() : 1;
    absl::StrAppend(&text_, head, std::string(gap, ' '), Printable(value), "\n");
  }
  std::string Take() { return std::move(text_); }

 private:
  const size_t width_;
  std::string text_;
};

std::string ContentText(const v1::FileSource& file, int64_t size_bytes) {
  return absl::StrCat(file.file_name(), ", ", size_bytes, " bytes, sha256 ", LastPart(file.blob()));
}

void AddContent(const v1::Attachment& attachment, bool live, Lines& lines) {
  lines.Add(2, "wanted", ContentText(attachment.file(), attachment.size_bytes()));
  if (!live) return;
  lines.Add(2, "active",
            attachment.has_active()
                ? ContentText(attachment.active().file(), attachment.active().size_bytes())
                : "none");
  if (!attachment.fault().empty()) lines.Add(2, "fault", attachment.fault());
}

std::string ChannelText(const v1::Attachment& attachment) {
  return attachment.open() ? "attached, channel open" : "attached, channel closed";
}

const v1::Attachment* FindAttachment(const v1::Vm& vm, std::string_view device) {
  for (const v1::Attachment& attachment : vm.attachments()) {
    if (LastPart(attachment.name()) == device) return &attachment;
  }
  return nullptr;
}

std::string LinkState(const v1::Vm& vm) {
  if (!vm.live_error().empty()) return "unknown";
  return vm.link_connected() ? "connected" : "waiting";
}

// A device's cell in the list: its digest's beginning, and whether it is open.
std::string Cell(const v1::Vm& vm, std::string_view device) {
  const v1::Attachment* attachment = FindAttachment(vm, device);
  if (attachment == nullptr) return "-";
  return absl::StrCat(LastPart(attachment->file().blob()).substr(0, kDigestShownChars),
                      attachment->open() ? " open" : "");
}

std::string ValueText(const v1::Node& node) {
  switch (node.value_case()) {
    case v1::Node::kBoolValue:
      return node.bool_value() ? "true" : "false";
    case v1::Node::kIntValue:
      return absl::StrCat(node.int_value());
    case v1::Node::kUintValue:
      return absl::StrCat(node.uint_value());
    case v1::Node::kStringValue:
      return Printable(node.string_value());
    case v1::Node::VALUE_NOT_SET:
      break;
  }
  return "";
}

void AppendNode(const v1::Node& node, size_t indent, std::string& text) {
  const std::string name = Printable(node.name());
  if (node.value_case() != v1::Node::VALUE_NOT_SET) {
    absl::StrAppend(&text, std::string(indent, ' '), name, ": ", ValueText(node), "\n");
    return;
  }
  absl::StrAppend(&text, std::string(indent, ' '), name, "/", node.truncated() ? " ..." : "", "\n");
  for (const v1::Node& child : node.children()) AppendNode(child, indent + 2, text);
}

}  // namespace

std::string Printable(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 =
        byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f || c1) return log::Escape(text, kEscapedBytesMax);
  }
  return text;
}

std::string TextOf(const v1::Vm& vm) {
  constexpr size_t kWidth = 11;
  Lines lines(kWidth);
  lines.Add(0, "name", LastPart(vm.name()));
  lines.Add(0, "owner",
            vm.has_owner_uid() ? absl::StrCat("uid ", vm.owner_uid()) : "the daemon's user");
  if (vm.allow_unsealed_memory()) lines.Add(0, "memory", "may be unsealed");
  if (vm.monitored()) lines.Add(0, "channels", "monitored");
  lines.Add(0, "link", absl::StrCat(vm.link_path(), ", ", LinkState(vm)));
  lines.Add(0, "created", google::protobuf::util::TimeUtil::ToString(vm.create_time()));
  for (const char* device : {"imc", "boot"}) {
    const v1::Attachment* attachment = FindAttachment(vm, device);
    lines.Add(0, device, attachment == nullptr ? "not attached" : ChannelText(*attachment));
    if (attachment != nullptr) AddContent(*attachment, vm.live_error().empty(), lines);
  }
  return lines.Take();
}

std::string TextOf(const v1::Attachment& attachment) {
  constexpr size_t kWidth = 11;
  Lines lines(kWidth);
  lines.Add(0, "name", attachment.name());
  lines.Add(0, "state", ChannelText(attachment));
  AddContent(attachment, /*live=*/true, lines);
  return lines.Take();
}

std::string TextOf(const v1::ListVmsResponse& vms) {
  using Row = std::array<std::string, 4>;
  if (vms.vms().empty()) return "";
  std::vector<Row> rows{{"NAME", "LINK", "IMC", "BOOT"}};
  for (const v1::Vm& vm : vms.vms()) {
    rows.push_back({LastPart(vm.name()), LinkState(vm), Cell(vm, "imc"), Cell(vm, "boot")});
  }
  std::array<size_t, 4> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      absl::StrAppendFormat(&text, "%-*s  ", static_cast<int>(widths[i]), row[i]);
    }
    absl::StrAppend(&text, row.back(), "\n");
  }
  return text;
}

std::string TextOf(const v1::Node& node) {
  std::string text;
  AppendNode(node, 0, text);
  return text;
}

}  // namespace vmbfs::ctl
