// Hives over a real socket: made, given to VMs, checked, explained, compared.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/host/host.h"
#include "grpc/hives/hives.h"
#include "grpc/imc/imc_inputs.h"
#include "grpc/server/services_fixture.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

constexpr char kHeader[] = "Windows Registry Editor Version 5.00\n\n";

// A file that names the computer.
std::string Named(const std::string& name) {
  return absl::StrCat(
      kHeader,
      "[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ComputerName]\n",
      "\"ComputerName\"=\"", name, "\"\n");
}

class ImcTest : public ServicesTest {
 protected:
  static v1::ImcInput Input(const std::string& content, const std::string& name = "in.reg") {
    v1::ImcInput input;
    input.set_name(name);
    input.set_content(content);
    return input;
  }

  absl::StatusOr<v1::BuildImcResponse> Build(const std::string& content) {
    v1::BuildImcRequest request;
    *request.add_inputs() = Input(content);
    return client_->BuildImc(request);
  }

  // The name of the blob that holds the hive of this text.
  std::string Hive(const std::string& content) {
    const auto built = Build(content);
    EXPECT_TRUE(built.ok()) << built.status();
    return built.ok() ? built->blob().name() : "";
  }

  absl::StatusOr<v1::Attachment> Provision(const std::string& content, const std::string& etag = "",
                                           bool validate_only = false) {
    v1::ProvisionImcRequest request;
    request.set_vm("vms/web");
    *request.add_inputs() = Input(content);
    request.set_etag(etag);
    request.set_validate_only(validate_only);
    return client_->ProvisionImc(request);
  }

  absl::StatusOr<v1::Attachment> AttachStrictly(const std::string& device,
                                                const std::string& blob) {
    v1::CreateAttachmentRequest request;
    request.set_parent("vms/web");
    request.set_attachment_id(device);
    request.mutable_attachment()->mutable_file()->set_blob(blob);
    if (device == "boot") request.mutable_attachment()->mutable_file()->set_file_name("kernel");
    request.set_strict(true);
    return client_->CreateAttachment(request);
  }

  absl::StatusOr<v1::Attachment> SwapStrictly(const std::string& blob) {
    v1::UpdateAttachmentRequest request;
    request.mutable_attachment()->set_name("vms/web/attachments/imc");
    request.mutable_attachment()->mutable_file()->set_blob(blob);
    request.set_strict(true);
    return client_->UpdateAttachment(request);
  }
};

TEST_F(ImcTest, BuiltHiveIsStoredAndNamedByItsDigest) {
  v1::BuildImcRequest request;
  *request.add_inputs() = Input(Named("WEB-7"));
  request.set_validate_only(true);
  const auto validated = client_->BuildImc(request);
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(server_.host().blob_count(), 0u);

  request.set_validate_only(false);
  request.set_include_hive(true);
  const auto built = client_->BuildImc(request);
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->blob().name(), validated->blob().name());
  EXPECT_EQ(built->blob().size_bytes(), 8192);
  EXPECT_THAT(built->warnings(), IsEmpty());
  EXPECT_THAT(built->hive(), SizeIs(8192));
  EXPECT_THAT(built->hive(), StartsWith("regf"));
  EXPECT_EQ(Blob(built->hive()), built->blob().name());
  v1::GetBlobRequest get;
  get.set_name(built->blob().name());
  EXPECT_TRUE(client_->GetBlob(get).ok());
}

TEST_F(ImcTest, InputsFromBlobsMakeTheSameHiveAsInlineOnes) {
  v1::BuildImcRequest request;
  v1::ImcInput* input = request.add_inputs();
  input->set_blob(Blob(Named("WEB-7")));
  const auto built = client_->BuildImc(request);
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->blob().name(), Hive(Named("WEB-7")));

  input->set_blob("blobs/" + std::string(64, '0'));
  ExpectError(client_->BuildImc(request), StatusCode::kNotFound, "BLOB_NOT_FOUND");
  input->set_blob("WEB-7");
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "NAME_INVALID");
}

TEST_F(ImcTest, SequenceAndControlSetsFollowTheOptions) {
  v1::BuildImcRequest request;
  *request.add_inputs() =
      Input(absl::StrCat(kHeader, "[HKLM\\SYSTEM\\ControlSet001\\Control]\n\"a\"=dword:1\n"));
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
  request.mutable_options()->set_rewrite_control_sets(true);
  const auto rewritten = client_->BuildImc(request);
  ASSERT_TRUE(rewritten.ok()) << rewritten.status();
  EXPECT_THAT(rewritten->warnings(), ElementsAre(HasSubstr("CurrentControlSet")));

  request.mutable_options()->set_sequence(1);
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "SEQUENCE_INVALID");
  request.mutable_options()->set_force(true);
  EXPECT_TRUE(client_->BuildImc(request).ok());
  request.mutable_options()->set_sequence(7);
  v1::ExplainImcRequest explain;
  explain.mutable_hive()->set_blob(client_->BuildImc(request)->blob().name());
  EXPECT_THAT(client_->ExplainImc(explain)->lines(), Contains(HasSubstr("number 7")));
}

TEST_F(ImcTest, MistakesAreNamedByFileLineAndColumnAndStoreNothing) {
  const auto deletion = Build(absl::StrCat(kHeader, "[-HKEY_LOCAL_MACHINE\\SYSTEM\\Setup]\n"));
  ExpectError(deletion, StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
  EXPECT_THAT(std::string(deletion.status().message()), StartsWith("in.reg:3:"));
  ExpectError(Build("not a .reg file"), StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
  ExpectError(Build(""), StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
  ExpectError(Build(absl::StrCat(kHeader, "[HKEY_CURRENT_USER\\Software]\n")),
              StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
  EXPECT_EQ(server_.host().blob_count(), 0u);
}

TEST_F(ImcTest, ManyErrorsAreListedAsFarAsAStatusHasRoom) {
  std::string text = kHeader;
  for (int i = 0; i < 100; ++i) {
    absl::StrAppend(&text, "[HKLM\\SYSTEM\\CurrentControlSet\\Services\\agent-", i,
                    "]\n\"Start\"=\"2\"\n");
  }
  const std::string message(Build(text).status().message());
  EXPECT_THAT(message, HasSubstr("agent-0\\Start: a service's Start and Type are DWORDs\n"));
  EXPECT_THAT(message, testing::EndsWith(" more errors are left out"));
  EXPECT_LE(message.size(), 1024u);
}

TEST_F(ImcTest, WrongRequestsAreRefused) {
  v1::BuildImcRequest request;
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "INPUTS_INVALID");
  request.add_inputs();
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "INPUTS_INVALID");
  for (const std::string& name : {std::string(kInputNameBytesMax + 1, 'n'), std::string("a\nb")}) {
    *request.mutable_inputs(0) = Input(Named("A"), name);
    ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "INPUTS_INVALID");
  }
  *request.mutable_inputs(0) = Input(Named("A"));
  for (int i = 0; i < kInputsMax; ++i) *request.add_inputs() = Input(kHeader);
  ExpectError(client_->BuildImc(request), StatusCode::kInvalidArgument, "INPUTS_INVALID");
  request.mutable_inputs()->RemoveLast();
  EXPECT_TRUE(client_->BuildImc(request).ok());
}

TEST_F(ImcTest, InputsHaveAMaximumTogether) {
  // Comments: cheap to read, and as large as is allowed.
  std::string large = kHeader;
  large.resize(33 << 20, ';');
  v1::BuildImcRequest request;
  request.add_inputs()->set_blob(Blob(large));
  EXPECT_TRUE(client_->BuildImc(request).ok());
  *request.add_inputs() = request.inputs(0);
  ExpectError(client_->BuildImc(request), StatusCode::kResourceExhausted, "IMC_TOO_LARGE");
}

TEST_F(ImcTest, HiveAboveTheDevicesLimitIsRefused) {
  v1::BuildImcRequest request;
  std::string text = absl::StrCat(kHeader, "[HKLM\\SYSTEM\\CurrentControlSet\\Control]\n");
  const std::string million(1'000'000, 'x');
  for (int i = 0; i < 10; ++i) absl::StrAppend(&text, "\"v", i, "\"=\"", million, "\"\n");
  request.add_inputs()->set_blob(Blob(text));
  request.mutable_options()->set_force(true);
  ExpectError(client_->BuildImc(request), StatusCode::kResourceExhausted, "IMC_TOO_LARGE");
}

TEST_F(ImcTest, ProvisionAttachesSwapsAndRepeatsWithoutAChange) {
  ExpectError(Provision(Named("ONE")), StatusCode::kNotFound, "VM_NOT_FOUND");
  EXPECT_EQ(server_.host().blob_count(), 0u);
  ASSERT_TRUE(CreateVm("web").ok());
  const auto attached = Provision(Named("ONE"));
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ(attached->name(), "vms/web/attachments/imc");
  EXPECT_EQ(attached->file().blob(), Hive(Named("ONE")));
  EXPECT_EQ(attached->file().file_name(), "imc.hiv");

  for (const std::string& etag : {std::string(), attached->etag(), std::string("stale")}) {
    const auto again = Provision(Named("ONE"), etag);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->SerializeAsString(), attached->SerializeAsString());
  }
  ExpectError(Provision(Named("TWO"), "stale"), StatusCode::kAborted, "ETAG_MISMATCH");
  const auto swapped = Provision(Named("TWO"), attached->etag());
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->file().blob(), Hive(Named("TWO")));
  EXPECT_NE(swapped->etag(), attached->etag());
  ExpectError(Provision("nonsense"), StatusCode::kInvalidArgument, "IMC_INPUT_INVALID");
}

TEST_F(ImcTest, ValidatedProvisioningAnswersTheSameWithoutEffect) {
  ExpectError(Provision(Named("ONE"), "", true), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(CreateVm("web").ok());
  const auto validated = Provision(Named("ONE"), "", true);
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_FALSE(validated->has_create_time());
  EXPECT_EQ(server_.host().blob_count(), 0u);
  EXPECT_TRUE(absl::IsNotFound(server_.host().GetAttachment("web", DeviceKind::kImc).status()));
  ExpectError(Provision(Named("ONE"), "1", true), StatusCode::kAborted, "ETAG_MISMATCH");

  const auto attached = Provision(Named("ONE"));
  EXPECT_EQ(attached->file().blob(), validated->file().blob());
  EXPECT_EQ(Provision(Named("ONE"), "stale", true)->etag(), attached->etag());
  ExpectError(Provision(Named("TWO"), "stale", true), StatusCode::kAborted, "ETAG_MISMATCH");
  EXPECT_NE(Provision(Named("TWO"), "", true)->file().blob(), attached->file().blob());
  EXPECT_EQ(Provision(Named("ONE"))->etag(), attached->etag());
}

TEST_F(ImcTest, ValidHiveIsToldFromGarbage) {
  v1::ValidateImcRequest request;
  request.mutable_hive()->set_blob(Hive(Named("ONE")));
  const auto valid = client_->ValidateImc(request);
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->key_count(), 6);

  // As large as imc takes, and a hive at first sight.
  std::string garbage = "regf";
  garbage.resize(kImcBytesMax, '\x5a');
  request.mutable_hive()->set_blob(Blob(garbage));
  ExpectError(client_->ValidateImc(request), StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
  request.mutable_hive()->set_blob(Blob(garbage + "x"));
  ExpectError(client_->ValidateImc(request), StatusCode::kResourceExhausted, "IMC_TOO_LARGE");
  request.mutable_hive()->set_content("hive");
  ExpectError(client_->ValidateImc(request), StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
  request.clear_hive();
  ExpectError(client_->ValidateImc(request), StatusCode::kInvalidArgument, "SOURCE_MISSING");
}

TEST_F(ImcTest, HiveIsExplainedInWords) {
  v1::ExplainImcRequest request;
  request.mutable_hive()->set_blob(Hive(Named("ONE")));
  const auto explained = client_->ExplainImc(request);
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_THAT(explained->lines(),
              ElementsAre("the machine takes this hive if it has not seen number 2",
                          "the computer's name from the next boot on is \"ONE\""));
  EXPECT_EQ(explained->lines_left_out(), 0);
  request.mutable_hive()->set_content("hive");
  ExpectError(client_->ExplainImc(request), StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
}

TEST_F(ImcTest, LongExplanationsAreCutAndSaySo) {
  std::string text =
      absl::StrCat(kHeader, "[HKLM\\SYSTEM\\CurrentControlSet\\Control]\n\"long\"=\"",
                   std::string(5000, 'x'), "\"\n");
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&text, "\"v", i, "\"=dword:1\n");
  v1::ExplainImcRequest request;
  request.mutable_hive()->set_blob(Hive(text));
  const auto explained = client_->ExplainImc(request);
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_EQ(explained->lines_size(), static_cast<int>(kLinesMax));
  EXPECT_EQ(explained->lines_left_out(), 5002 - static_cast<int64_t>(kLinesMax));
  EXPECT_THAT(explained->lines(1), SizeIs(kLineBytesMax));
  EXPECT_THAT(explained->lines(1), testing::EndsWith("x…"));
}

TEST_F(ImcTest, DifferencesAreListedAndMadeARegFile) {
  v1::DiffImcRequest request;
  request.mutable_first()->set_blob(Hive(Named("ONE")));
  request.mutable_second()->set_blob(Hive(Named("ONE")));
  EXPECT_TRUE(client_->DiffImc(request)->same());
  request.mutable_second()->set_blob(Hive(Named("TWO")));
  request.set_include_reg_file(true);
  const auto difference = client_->DiffImc(request);
  ASSERT_TRUE(difference.ok()) << difference.status();
  EXPECT_FALSE(difference->same());
  EXPECT_THAT(difference->lines(), ElementsAre(HasSubstr("\"ONE\" -> \"TWO\"")));
  EXPECT_THAT(difference->reg_file(), HasSubstr("\"ComputerName\"=\"TWO\""));
  request.mutable_second()->set_content("hive");
  const auto refused = client_->DiffImc(request);
  ExpectError(refused, StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
}

TEST_F(ImcTest, ForAVmThatIsNotThereNoHiveIsRead) {
  const std::string garbage = Blob("no hive at all");
  ExpectError(AttachStrictly("imc", garbage), StatusCode::kNotFound, "VM_NOT_FOUND");
  ExpectError(SwapStrictly(garbage), StatusCode::kNotFound, "VM_NOT_FOUND");
}

TEST_F(ImcTest, AnyBytesAreAttachedWithAWarningUnlessStrict) {
  ASSERT_TRUE(CreateVm("web").ok());
  const std::string garbage = Blob("no hive at all");
  ExpectError(AttachStrictly("imc", garbage), StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
  EXPECT_TRUE(absl::IsNotFound(server_.host().GetAttachment("web", DeviceKind::kImc).status()));
  const auto attached = Attach("imc", garbage);
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_THAT(attached->warnings(), ElementsAre(StartsWith("not a valid hive: ")));
  v1::GetAttachmentRequest get;
  get.set_name("vms/web/attachments/imc");
  EXPECT_THAT(client_->GetAttachment(get)->warnings(), IsEmpty());

  const auto swapped = SwapStrictly(Hive(Named("ONE")));
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_THAT(swapped->warnings(), IsEmpty());
  ExpectError(SwapStrictly(garbage), StatusCode::kInvalidArgument, "IMC_HIVE_INVALID");
  EXPECT_EQ(client_->GetAttachment(get)->etag(), swapped->etag());
  EXPECT_THAT(Swap("imc", client_->GetAttachment(get)->file())->warnings(), IsEmpty());
}

TEST_F(ImcTest, StrictIsForImcAndLeavesOtherErrorsAsTheyAre) {
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(AttachStrictly("boot", Blob("kernel")), StatusCode::kInvalidArgument,
              "STRICT_NOT_SUPPORTED");
  EXPECT_THAT(Attach("boot", Blob("kernel"))->warnings(), IsEmpty());
  ExpectError(AttachStrictly("imc", "blobs/" + std::string(64, '0')), StatusCode::kNotFound,
              "BLOB_NOT_FOUND");
  ExpectError(AttachStrictly("imc", Blob(std::string(kImcBytesMax + 1, 'x'))),
              StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
}

}  // namespace
}  // namespace vmbfs::rpc
