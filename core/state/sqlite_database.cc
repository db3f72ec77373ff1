#include "core/state/sqlite_database.h"

#include "absl/strings/str_cat.h"

namespace vmbfs::state {
namespace {

// Another process may look into the database; it is given this long to end.
constexpr int kBusyTimeoutMs = 5000;

absl::Status ToStatus(sqlite3* database, int code) {
  const std::string message =
      absl::StrCat("state database: ", sqlite3_errstr(code), ": ", sqlite3_errmsg(database));
  switch (code) {
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_UNIQUE:
      return absl::AlreadyExistsError(message);
    case SQLITE_CONSTRAINT_FOREIGNKEY:
      return absl::NotFoundError(message);
    default:
      break;
  }
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; make room and try again"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

Statement::Statement(sqlite3* database, const char* sql) : database_(database) {
  sqlite3_stmt* statement = nullptr;
  error_ = sqlite3_prepare_v2(database, sql, -1, &statement, nullptr);
  statement_.reset(statement);
}

Statement& Statement::Bind(std::string_view text) {
  if (error_ == SQLITE_OK) {
    error_ = sqlite3_bind_text64(statement_.get(), next_parameter_++, text.data(), text.size(),
                                 SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  return *this;
}

Statement& Statement::Bind(int64_t number) {
  if (error_ == SQLITE_OK) {
    error_ = sqlite3_bind_int64(statement_.get(), next_parameter_++, number);
  }
  return *this;
}

Statement& Statement::Bind(std::optional<int64_t> number) {
  if (number.has_value()) return Bind(*number);
  ++next_parameter_;  // A parameter that nothing was bound to is NULL.
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  if (error_ == SQLITE_OK) {
    const int result = sqlite3_step(statement_.get());
    if (result == SQLITE_ROW) return true;
    if (result == SQLITE_DONE) return false;
    error_ = result;
  }
  return ToStatus(database_, error_);
}

std::optional<std::string> Statement::Text(int column) const {
  if (sqlite3_column_type(statement_.get(), column) != SQLITE_TEXT) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (text == nullptr) return std::nullopt;
  return std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

std::optional<int64_t> Statement::Integer(int column) const {
  if (sqlite3_column_type(statement_.get(), column) != SQLITE_INTEGER) return std::nullopt;
  return sqlite3_column_int64(statement_.get(), column);
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& file) {
  sqlite3* opened = nullptr;
  // Its own lock is not needed: one thread at a time is the caller's promise.
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int result = sqlite3_open_v2(file.c_str(), &opened, flags, nullptr);
  if (opened == nullptr) return absl::ResourceExhaustedError("state database: no memory");
  std::unique_ptr<Database> database(new Database(opened));
  absl::Status status =
      result == SQLITE_OK ? database->SetUp() : ToStatus(opened, sqlite3_extended_errcode(opened));
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat(file.string(), ": ", status.message()));
  }
  return database;
}

Database::~Database() { sqlite3_close(database_); }

absl::Status Database::SetUp() {
  sqlite3_extended_result_codes(database_, 1);
  sqlite3_busy_timeout(database_, kBusyTimeoutMs);
  Statement journal = Prepare("PRAGMA journal_mode = WAL");
  const auto row = journal.Step();
  if (!row.ok()) return row.status();
  if (journal.Text(0) != "wal") {
    return absl::InternalError("the file system cannot hold a write-ahead log; use a local one");
  }
  return Run(
      "PRAGMA synchronous = FULL;"
      "PRAGMA foreign_keys = ON;"
      "PRAGMA trusted_schema = OFF;");
}

absl::Status Database::Run(const char* sql) {
  const int result = sqlite3_exec(database_, sql, nullptr, nullptr, nullptr);
  return result == SQLITE_OK ? absl::OkStatus() : ToStatus(database_, result);
}

Transaction::Transaction(Database& database)
    : database_(database), begun_(database.Run("BEGIN IMMEDIATE")) {}

Transaction::~Transaction() {
  // After some errors SQLite has rolled back already; that this fails then is no harm.
  if (begun_.ok() && !committed_) (void)database_.Run("ROLLBACK");
}

absl::Status Transaction::Commit() {
  absl::Status status = database_.Run("COMMIT");
  committed_ = status.ok();
  return status;
}

}  // namespace vmbfs::state
