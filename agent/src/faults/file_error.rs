//! `file-error`: operations on chosen files fail, as on a broken or full disk.

use super::file_operations::Operations;
use super::{FaultKind, Plan, PlanContext};
use crate::helpers::{FileOperation, FileVerdict};
use crate::processes::OneOrMany;
use crate::units::ErrorName;
use backburn_experiments::Problem;
use backburn_experiments::percent::{self, Percent};
use backburn_experiments::wire::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Makes operations on files fail, whoever does them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileError {
    /// Files, and folders that stand for the files directly in them: absolute paths, one or a list.
    path: OneOrMany<PathBuf>,
    /// The error that they fail with: `EIO`, `ENOSPC`, `EDQUOT`, `EBUSY`, `EAGAIN` or `EPERM`. All but `EPERM` require Linux 6.14. Default: `EIO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorName>,
    /// Which operations fail: `open`; `read`; `access` for reads, writes, truncations and mappings, which requires Linux 6.14. Default: `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<OneOrMany<FileOperation>>,
    /// Chance of each operation to fail, in percent, drawn from the seed. Default: all operations.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "percent::optional"
    )]
    #[schemars(with = "Option<Percent>")]
    percent: Option<f64>,
}

/// The errors that the kernel takes (`FAN_DENY_ERRNO`); with another one, it would leave the operation waiting.
const ERRORS: [&str; 6] = ["EIO", "ENOSPC", "EDQUOT", "EBUSY", "EAGAIN", "EPERM"];
/// The number of `EIO` in `errno(3)`.
const DEFAULT_ERROR: i32 = 5;

impl FileError {
    fn operations(&self) -> Operations<'_> {
        Operations {
            path: &self.path,
            on: self.on.as_ref(),
            percent: self.percent,
        }
    }
}

impl FaultKind for FileError {
    const NAME: &'static str = "file-error";
    const SUMMARY: &'static str = "Make operations on chosen files fail";

    fn example() -> Value {
        json!({"path": ["/var/lib/app/index", "/var/lib/app/spool"], "error": "ENOSPC", "percent": 10})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.operations().problems();
        if let Some(error) = &self.error
            && !ERRORS.contains(&error.name())
        {
            problems.push(
                Problem::new(
                    "$.error",
                    format!(
                        "the kernel cannot make an operation on a file fail with `{}`",
                        error.name()
                    ),
                )
                .hint(format!(
                    "give one of {}; `syscall-error` knows others",
                    ERRORS.join(", ")
                )),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let number = self.error.as_ref().map_or(DEFAULT_ERROR, ErrorName::number);
        self.operations().plan(FileVerdict::Error(number), context)
    }
}
