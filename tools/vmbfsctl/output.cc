#include "tools/vmbfsctl/output.h"

#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <ostream>

#include "absl/strings/str_cat.h"
#include "tools/vmbfsctl/text.h"

namespace vmbfs::ctl {
namespace {

// Whether fields are shown that have their type's zero: programs want them in
// a resource, and nobody does in a tree of a thousand nodes.
enum class Zeros { kShown, kLeftOut };

absl::Status PrintForPrograms(const google::protobuf::Message& message, Zeros zeros, Format format,
                              std::ostream& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = zeros == Zeros::kShown;
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!printed.ok()) {
    return absl::InternalError(absl::StrCat("the answer has no JSON form: ", printed.ToString()));
  }
  if (format == Format::kJson) {
    out << json;
    return absl::OkStatus();
  }
  const absl::StatusOr<std::string> yaml = YamlFromJson(json);
  if (!yaml.ok()) return yaml.status();
  out << *yaml;
  return absl::OkStatus();
}

void Emit(const YAML::Node& node, YAML::Emitter& out) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      out << YAML::BeginMap;
      for (const auto& entry : node) {
        out << YAML::Key << entry.first.Scalar() << YAML::Value;
        Emit(entry.second, out);
      }
      out << YAML::EndMap;
      return;
    case YAML::NodeType::Sequence:
      out << YAML::BeginSeq;
      for (const auto& entry : node) Emit(entry, out);
      out << YAML::EndSeq;
      return;
    case YAML::NodeType::Scalar:
      // "!" is how a scalar in quotes is told from a number or a bool.
      if (node.Tag() == "!") out << YAML::DoubleQuoted;
      out << node.Scalar();
      return;
    default:
      out << YAML::Null;
  }
}

template <typename Message>
absl::Status PrintAs(const Message& message, Zeros zeros, Format format, std::ostream& out) {
  if (format != Format::kText) return PrintForPrograms(message, zeros, format, out);
  out << TextOf(message);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> YamlFromJson(const std::string& json) {
  // JSON as protobuf prints it is YAML too; the library throws where it is not.
  try {
    YAML::Emitter emitter;
    Emit(YAML::Load(json), emitter);
    return absl::StrCat(emitter.c_str(), "\n");
  } catch (const YAML::Exception& error) {
    return absl::InternalError(absl::StrCat("the answer has no YAML form: ", error.what()));
  }
}

absl::Status Print(const v1::Vm& vm, Format format, std::ostream& out) {
  return PrintAs(vm, Zeros::kShown, format, out);
}

absl::Status Print(const v1::ListVmsResponse& vms, Format format, std::ostream& out) {
  return PrintAs(vms, Zeros::kShown, format, out);
}

absl::Status Print(const v1::Attachment& attachment, Format format, std::ostream& out) {
  return PrintAs(attachment, Zeros::kShown, format, out);
}

absl::Status Print(const v1::Node& node, Format format, std::ostream& out) {
  return PrintAs(node, Zeros::kLeftOut, format, out);
}

}  // namespace vmbfs::ctl
