#include "tools/vmbfsctl/output.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace vmbfs::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kWanted(64, 'b');
const std::string kActive(64, 'a');

v1::Vm Example() {
  v1::Vm vm;
  vm.set_name("vms/web-7");
  vm.set_owner_uid(1000);
  vm.set_link_path("/run/vmbfs/vm/web-7.sock");
  vm.set_link_connected(true);
  vm.set_etag("9");
  vm.mutable_create_time()->set_seconds(1'700'000'000);
  v1::Attachment& imc = *vm.add_attachments();
  imc.set_name("vms/web-7/attachments/imc");
  imc.mutable_file()->set_blob("blobs/" + kWanted);
  imc.mutable_file()->set_file_name("imc.hiv");
  imc.set_size_bytes(200);
  imc.mutable_active()->mutable_file()->set_blob("blobs/" + kActive);
  imc.mutable_active()->mutable_file()->set_file_name("imc.hiv");
  imc.mutable_active()->set_size_bytes(100);
  imc.set_open(true);
  return vm;
}

template <typename Message>
std::string Printed(const Message& message, Format format) {
  std::ostringstream out;
  EXPECT_TRUE(Print(message, format, out).ok());
  return out.str();
}

TEST(Text, VmShowsWantedAndActiveContentBelowEachOther) {
  EXPECT_EQ(Printed(Example(), Format::kText),
            "name:      web-7\n"
            "owner:     uid 1000\n"
            "link:      /run/vmbfs/vm/web-7.sock, connected\n"
            "created:   2023-11-14T22:13:20Z\n"
            "imc:       attached, channel open\n"
            "  wanted:  imc.hiv, 200 bytes, sha256 " +
                kWanted +
                "\n"
                "  active:  imc.hiv, 100 bytes, sha256 " +
                kActive +
                "\n"
                "boot:      not attached\n");
}

TEST(Text, UnsealedMemoryIsShownWhereItIsAllowed) {
  v1::Vm vm = Example();
  EXPECT_THAT(Printed(vm, Format::kText), Not(HasSubstr("memory:")));
  vm.set_allow_unsealed_memory(true);
  EXPECT_THAT(Printed(vm, Format::kText), HasSubstr("memory:    may be unsealed\n"));
  EXPECT_THAT(Printed(vm, Format::kJson), HasSubstr("\"allowUnsealedMemory\": true"));
}

TEST(Text, MonitoredChannelsAreShownWhereTheyAreOffered) {
  v1::Vm vm = Example();
  EXPECT_THAT(Printed(vm, Format::kText), Not(HasSubstr("channels:")));
  vm.set_monitored(true);
  EXPECT_THAT(Printed(vm, Format::kText), HasSubstr("channels:  monitored\n"));
  EXPECT_THAT(Printed(vm, Format::kJson), HasSubstr("\"monitored\": true"));
}

TEST(Text, ClosedChannelHasNoActiveContentAndAFaultIsShown) {
  v1::Attachment attachment = Example().attachments(0);
  attachment.clear_active();
  attachment.set_open(false);
  attachment.set_fault("ring: packet refused");
  const std::string text = Printed(attachment, Format::kText);
  EXPECT_THAT(text, HasSubstr("  active:  none\n"));
  EXPECT_THAT(text, HasSubstr("  fault:   ring: packet refused\n"));
  EXPECT_THAT(text, HasSubstr("attached, channel closed"));
}

TEST(Text, ListIsAligned) {
  v1::ListVmsResponse vms;
  *vms.add_vms() = Example();
  v1::Vm& other = *vms.add_vms();
  other.set_name("vms/a-longer-name");
  v1::Vm& stuck = *vms.add_vms();
  stuck.set_name("vms/stuck");
  stuck.set_live_error("the VM does not answer");
  EXPECT_EQ(Printed(vms, Format::kText),
            "NAME           LINK       IMC                BOOT\n"
            "web-7          connected  bbbbbbbbbbbb open  -\n"
            "a-longer-name  waiting    -                  -\n"
            "stuck          unknown    -                  -\n");
  EXPECT_EQ(Printed(v1::ListVmsResponse(), Format::kText), "");
}

v1::Node Tree() {
  v1::Node root;
  v1::Node& vm = *root.add_children();
  vm.set_name("web-7");
  v1::Node& open = *vm.add_children();
  open.set_name("open");
  open.set_bool_value(false);
  v1::Node& bytes = *vm.add_children();
  bytes.set_name("bytes");
  bytes.set_uint_value(18446744073709551615u);
  v1::Node& name = *vm.add_children();
  name.set_name("last_name");
  name.set_string_value("\x1b[2Jx");
  v1::Node& ring = *vm.add_children();
  ring.set_name("ring");
  ring.set_truncated(true);
  return root;
}

TEST(Text, TreeIsIndentedAndControlCharactersAreEscaped) {
  EXPECT_EQ(Printed(Tree(), Format::kText),
            "/\n"
            "  web-7/\n"
            "    open: false\n"
            "    bytes: 18446744073709551615\n"
            "    last_name: \\x1b[2Jx\n"
            "    ring/ ...\n");
}

TEST(Json, IsTheMessageAgain) {
  const v1::Vm vm = Example();
  const std::string json = Printed(vm, Format::kJson);
  v1::Vm parsed;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), vm.SerializeAsString());
  EXPECT_THAT(json, HasSubstr("\"linkConnected\": true"));
  EXPECT_THAT(json, HasSubstr("\"ownerUid\": 1000"));
}

TEST(Json, FieldsOfAResourceAreThereEvenWhenEmpty) {
  const std::string json = Printed(v1::Vm(), Format::kJson);
  EXPECT_THAT(json, HasSubstr("\"linkConnected\": false"));
  EXPECT_THAT(json, HasSubstr("\"attachments\": []"));
  EXPECT_THAT(json, Not(HasSubstr("ownerUid")));
  EXPECT_THAT(Printed(v1::ListVmsResponse(), Format::kJson), HasSubstr("\"vms\": []"));
  EXPECT_THAT(Printed(Tree(), Format::kJson), Not(HasSubstr("\"truncated\": false")));
}

TEST(Yaml, KeepsOrderAndTypes) {
  const std::string yaml = Printed(Example(), Format::kYaml);
  EXPECT_THAT(yaml, testing::StartsWith("name: \"vms/web-7\"\nlinkPath: \"/run/"));
  EXPECT_THAT(yaml, HasSubstr("\nlinkConnected: true\n"));
  EXPECT_THAT(yaml, HasSubstr("\nownerUid: 1000"));
  // A 64-bit number is a string in protobuf's JSON, and stays one.
  EXPECT_THAT(yaml, HasSubstr("\n    sizeBytes: \"200\"\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  - name: \"vms/web-7/attachments/imc\"\n"));
}

TEST(Yaml, StringsThatLookLikeSomethingElseStayStrings) {
  const auto yaml =
      YamlFromJson(R"({"a": "true", "b": "1", "c": "x: y\n\"q\"", "d": "", "e": {}})");
  ASSERT_TRUE(yaml.ok());
  EXPECT_EQ(*yaml, "a: \"true\"\nb: \"1\"\nc: \"x: y\\n\\\"q\\\"\"\nd: \"\"\ne:\n  {}\n");
  EXPECT_FALSE(YamlFromJson("{\"a\": [").ok());
}

}  // namespace
}  // namespace vmbfs::ctl
