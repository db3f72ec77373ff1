#include "core/state/state_store.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/status.h"

namespace vmbfs {

bool operator==(const VmRecord& a, const VmRecord& b) {
  return std::tie(a.name, a.owner_uid, a.allow_unsealed_memory, a.monitored, a.create_time_us,
                  a.revision) == std::tie(b.name, b.owner_uid, b.allow_unsealed_memory, b.monitored,
                                          b.create_time_us, b.revision);
}

bool operator==(const AttachmentRecord& a, const AttachmentRecord& b) {
  return std::tie(a.vm, a.device, a.source_kind, a.sha256, a.size_bytes, a.file_name,
                  a.create_time_us, a.update_time_us, a.revision) ==
         std::tie(b.vm, b.device, b.source_kind, b.sha256, b.size_bytes, b.file_name,
                  b.create_time_us, b.update_time_us, b.revision);
}

namespace {

namespace fs = std::filesystem;
using absl::StatusCode;

VmRecord Vm(const std::string& name) {
  return VmRecord{.name = name, .owner_uid = 1000, .create_time_us = 17, .revision = 0};
}

AttachmentRecord Attachment(const std::string& vm, const std::string& device) {
  return AttachmentRecord{.vm = vm,
                          .device = device,
                          .source_kind = "blob",
                          .sha256 = std::string(64, 'a'),
                          .size_bytes = 8192,
                          .file_name = "imc.hiv",
                          .create_time_us = 18,
                          .update_time_us = 19,
                          .revision = 0};
}

// The tables as version 1 made them; it had given out revision 41.
constexpr char kTablesOfVersion1[] = R"sql(
    CREATE TABLE revisions (
      id   INTEGER PRIMARY KEY CHECK (id = 1),
      last INTEGER NOT NULL
    ) STRICT;
    INSERT INTO revisions (id, last) VALUES (1, 41);
    CREATE TABLE vms (
      name           TEXT PRIMARY KEY NOT NULL,
      owner_uid      INTEGER,
      create_time_us INTEGER NOT NULL,
      revision       INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE attachments (
      vm             TEXT NOT NULL REFERENCES vms (name) ON DELETE CASCADE,
      device         TEXT NOT NULL,
      source_kind    TEXT NOT NULL,
      sha256         TEXT NOT NULL,
      size_bytes     INTEGER NOT NULL,
      file_name      TEXT NOT NULL,
      create_time_us INTEGER NOT NULL,
      update_time_us INTEGER NOT NULL,
      revision       INTEGER NOT NULL,
      PRIMARY KEY (vm, device)
    ) STRICT, WITHOUT ROWID;
)sql";

// What every StateStore must do. Contents are compared as they are, and again
// after the store was closed and opened.
class StateStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/state_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = fs::path(pattern) / "var" / "state";
    Reopen();
  }
  void TearDown() override { fs::remove_all(folder_.parent_path().parent_path()); }

  void Reopen() {
    store_.reset();
    auto store = OpenStateStore(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  void ExpectContents(const std::vector<VmRecord>& vms,
                      const std::vector<AttachmentRecord>& attachments) {
    for (int look = 0; look < 2; ++look) {
      const auto contents = store_->Load();
      ASSERT_TRUE(contents.ok()) << contents.status();
      EXPECT_TRUE(contents->vms == vms) << "look " << look;
      EXPECT_TRUE(contents->attachments == attachments) << "look " << look;
      Reopen();
    }
  }

  // As an administrator would with a tool of their own.
  void Edit(const char* sql) {
    store_.reset();
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open((folder_ / "state.db").c_str(), &database), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(database);
    sqlite3_close(database);
  }

  void MakeDatabaseOfVersion1() {
    store_.reset();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    Edit(kTablesOfVersion1);
  }

  void ExpectBadRow(const char* sql, const std::string& place) {
    Edit(sql);
    Reopen();
    const absl::Status status = store_->Load().status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << sql;
    EXPECT_EQ(std::string(status.message()),
              "state database: " + place + " does not hold what this program writes; correct it");
  }

  fs::path folder_;
  std::unique_ptr<StateStore> store_;
};

TEST_F(StateStoreTest, NewStoreIsEmpty) { ExpectContents({}, {}); }

TEST_F(StateStoreTest, InsertedRowsAreLoadedInOrder) {
  VmRecord web = Vm("web-7");
  VmRecord db = Vm("db-1");
  db.owner_uid.reset();
  db.allow_unsealed_memory = true;
  web.monitored = true;
  web.revision = store_->InsertVm(web).value();
  db.revision = store_->InsertVm(db).value();
  AttachmentRecord imc = Attachment("web-7", "imc");
  AttachmentRecord boot = Attachment("web-7", "boot");
  imc.revision = store_->InsertAttachment(imc).value();
  boot.revision = store_->InsertAttachment(boot).value();
  web.revision = boot.revision;
  ExpectContents({db, web}, {boot, imc});
}

TEST_F(StateStoreTest, SecondOfTheSameKeyIsRefusedAndChangesNothing) {
  VmRecord web = Vm("web-7");
  ASSERT_TRUE(store_->InsertVm(web).ok());
  AttachmentRecord imc = Attachment("web-7", "imc");
  web.revision = imc.revision = store_->InsertAttachment(imc).value();
  VmRecord other = web;
  other.create_time_us = 99;
  EXPECT_EQ(store_->InsertVm(other).status().code(), StatusCode::kAlreadyExists);
  AttachmentRecord other_imc = imc;
  other_imc.size_bytes = 1;
  EXPECT_EQ(store_->InsertAttachment(other_imc).status().code(), StatusCode::kAlreadyExists);
  ExpectContents({web}, {imc});
}

TEST_F(StateStoreTest, AttachmentOfAnUnknownVmIsRefused) {
  EXPECT_EQ(store_->InsertAttachment(Attachment("web-7", "imc")).status().code(),
            StatusCode::kNotFound);
  ExpectContents({}, {});
}

TEST_F(StateStoreTest, UpdateReplacesAllButTheKeyAndTheTimeOfCreation) {
  VmRecord web = Vm("web-7");
  ASSERT_TRUE(store_->InsertVm(web).ok());
  AttachmentRecord boot = Attachment("web-7", "boot");
  ASSERT_TRUE(store_->InsertAttachment(boot).ok());
  boot.source_kind = "tree";
  boot.sha256 = std::string(64, 'b');
  boot.size_bytes = uint64_t{5} << 32;
  boot.file_name = "boot\xc3\xa4.wim";
  boot.update_time_us = 77;
  AttachmentRecord given = boot;
  given.create_time_us = 4711;
  web.revision = boot.revision = store_->UpdateAttachment(given).value();
  ExpectContents({web}, {boot});
}

TEST_F(StateStoreTest, ChangeOfWhatIsNotThereIsRefused) {
  VmRecord web = Vm("web-7");
  web.revision = store_->InsertVm(web).value();
  EXPECT_EQ(store_->UpdateAttachment(Attachment("web-7", "imc")).status().code(),
            StatusCode::kNotFound);
  EXPECT_EQ(store_->DeleteAttachment("web-7", "imc").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->DeleteVm("db-1").code(), StatusCode::kNotFound);
  ExpectContents({web}, {});
}

TEST_F(StateStoreTest, DeletedAttachmentIsGone) {
  VmRecord web = Vm("web-7");
  ASSERT_TRUE(store_->InsertVm(web).ok());
  ASSERT_TRUE(store_->InsertAttachment(Attachment("web-7", "imc")).ok());
  AttachmentRecord boot = Attachment("web-7", "boot");
  boot.revision = store_->InsertAttachment(boot).value();
  web.revision = store_->DeleteAttachment("web-7", "imc").value();
  ExpectContents({web}, {boot});
}

TEST_F(StateStoreTest, DeletedVmTakesItsAttachmentsAlong) {
  VmRecord db = Vm("db-1");
  ASSERT_TRUE(store_->InsertVm(Vm("web-7")).ok());
  db.revision = store_->InsertVm(db).value();
  ASSERT_TRUE(store_->InsertAttachment(Attachment("web-7", "imc")).ok());
  ASSERT_TRUE(store_->DeleteVm("web-7").ok());
  ExpectContents({db}, {});
}

TEST_F(StateStoreTest, RevisionIsNeverGivenTwice) {
  uint64_t last = 0;
  for (int round = 0; round < 3; ++round) {
    for (const uint64_t revision : {store_->InsertVm(Vm("web-7")).value(),
                                    store_->InsertAttachment(Attachment("web-7", "imc")).value(),
                                    store_->UpdateAttachment(Attachment("web-7", "imc")).value(),
                                    store_->DeleteAttachment("web-7", "imc").value()}) {
      EXPECT_GT(revision, last);
      last = revision;
    }
    ASSERT_TRUE(store_->DeleteVm("web-7").ok());
    Reopen();
  }
}

TEST_F(StateStoreTest, TextIsNeverTakenForSql) {
  VmRecord vm = Vm("x'); DROP TABLE vms; --");
  vm.revision = store_->InsertVm(vm).value();
  ExpectContents({vm}, {});
}

// What is below is of the SQLite store alone.

TEST_F(StateStoreTest, FolderIsPrivate) {
  struct stat info{};
  ASSERT_EQ(stat(folder_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
}

TEST_F(StateStoreTest, SecondDaemonIsRefusedUntilTheFirstEnds) {
  const absl::Status status = OpenStateStore(folder_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()), "another daemon holds the state directory " +
                                               folder_.string() +
                                               "; end it, or use another directory");
  Reopen();
}

// Version 1 had no unsealed memory. The database is as that version left it.
TEST_F(StateStoreTest, DatabaseOfVersion1IsTakenOverWithAllItHeld) {
  MakeDatabaseOfVersion1();
  Edit(R"sql(
    INSERT INTO vms VALUES ('db-1', NULL, 17, 3), ('web-7', 1000, 17, 41);
    INSERT INTO attachments VALUES ('web-7', 'imc', 'blob', printf('%.64c', 'a'), 8192, 'imc.hiv',
                                    18, 19, 41);
    PRAGMA user_version = 1;
  )sql");
  Reopen();
  VmRecord db = Vm("db-1");
  db.owner_uid.reset();
  db.revision = 3;
  VmRecord web = Vm("web-7");
  web.revision = 41;
  AttachmentRecord imc = Attachment("web-7", "imc");
  imc.revision = 41;
  ExpectContents({db, web}, {imc});
  VmRecord unsealed = Vm("x");
  unsealed.allow_unsealed_memory = true;
  unsealed.revision = store_->InsertVm(unsealed).value();
  EXPECT_EQ(unsealed.revision, 42u);
  ExpectContents({db, web, unsealed}, {imc});
}

// Version 2 had no monitored VMs. The database is as that version left it.
TEST_F(StateStoreTest, DatabaseOfVersion2IsTakenOverWithNoVmMonitored) {
  MakeDatabaseOfVersion1();
  Edit(R"sql(
    ALTER TABLE vms ADD COLUMN allow_unsealed_memory INTEGER NOT NULL DEFAULT 0;
    INSERT INTO vms VALUES ('db-1', NULL, 17, 3, 1), ('web-7', 1000, 17, 41, 0);
    PRAGMA user_version = 2;
  )sql");
  Reopen();
  VmRecord db = Vm("db-1");
  db.owner_uid.reset();
  db.allow_unsealed_memory = true;
  db.revision = 3;
  VmRecord web = Vm("web-7");
  web.revision = 41;
  ExpectContents({db, web}, {});
  VmRecord monitored = Vm("x");
  monitored.monitored = true;
  monitored.revision = store_->InsertVm(monitored).value();
  ExpectContents({db, web, monitored}, {});
}

TEST_F(StateStoreTest, NewerSchemaIsRefusedWithBothNumbers) {
  Edit("PRAGMA user_version = 7");
  const absl::Status status = OpenStateStore(folder_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()),
            (folder_ / "state.db").string() +
                " has schema version 7; this program knows version 3. Use the program that "
                "wrote it, or a later one");
}

TEST_F(StateStoreTest, RowsThatDoNotParseAreErrorsWithTheirKey) {
  ASSERT_TRUE(store_->InsertVm(Vm("web-7")).ok());
  ASSERT_TRUE(store_->InsertAttachment(Attachment("web-7", "imc")).ok());
  const std::string row = "table attachments, row \"web-7\", \"imc\": column ";
  ExpectBadRow("UPDATE attachments SET sha256 = 'xyz'", row + "sha256");
  ExpectBadRow("UPDATE attachments SET sha256 = printf('%064d', 0), size_bytes = -1",
               row + "size_bytes");
  ExpectBadRow("UPDATE attachments SET size_bytes = 1, file_name = ''", row + "file_name");
  ExpectBadRow("UPDATE attachments SET file_name = 'a', revision = 0", row + "revision");
  ExpectBadRow("UPDATE vms SET owner_uid = 4294967295",
               "table vms, row \"web-7\": column owner_uid");
  ExpectBadRow("UPDATE vms SET owner_uid = NULL, revision = -3",
               "table vms, row \"web-7\": column revision");
  ExpectBadRow("UPDATE vms SET revision = 3, allow_unsealed_memory = 2",
               "table vms, row \"web-7\": column allow_unsealed_memory");
  ExpectBadRow("UPDATE vms SET allow_unsealed_memory = 1, monitored = 2",
               "table vms, row \"web-7\": column monitored");
}

TEST_F(StateStoreTest, FileThatIsNoDatabaseIsAnError) {
  store_.reset();
  fs::remove(folder_ / "state.db-wal");
  fs::resize_file(folder_ / "state.db", 100);
  EXPECT_FALSE(OpenStateStore(folder_).ok());
}

}  // namespace
}  // namespace vmbfs
