//! `file-corrupt`: a file has wrong bytes, or its end is missing, as after a bad disk or a write that was cut off.

use super::{FaultKind, Plan, PlanContext};
use crate::changes::{Change, FilePatch, ReplaceFile};
use crate::units::{Amount, Size};
use backburn_experiments::Problem;
use backburn_experiments::wire::{Refusal, Victim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Replaces a file by a copy with wrong bytes, and puts the original back. Programs that open the file meanwhile get the copy; those that
/// have it open already keep the original.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileCorrupt {
    /// The file: an absolute path.
    path: PathBuf,
    /// How many bytes are wrong, at places drawn from the seed. Default: 1, or none with `length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    bytes: Option<u32>,
    /// Where wrong bytes may be: from this place on, in bytes from the beginning. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Size>,
    /// The length that the file is cut to: a size, or a percentage of its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<Amount>,
}

/// The largest file that is copied.
const MAX_FILE: Size = Size(1 << 30);

impl FaultKind for FileCorrupt {
    const NAME: &'static str = "file-corrupt";
    const SUMMARY: &'static str =
        "Give a file wrong bytes or a missing end, then put the original back";

    fn example() -> Value {
        json!({"path": "/var/lib/app/index", "bytes": 8})
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.path.is_absolute() {
            problems.push(
                Problem::new(
                    "$.path",
                    format!("`{}` is not an absolute path", self.path.display()),
                )
                .hint("begin with `/`"),
            );
        }
        if matches!(self.length, Some(Amount::Percent(percent)) if percent >= 100.0) {
            problems.push(
                Problem::new("$.length", "nothing would be cut off").hint("give less than 100%"),
            );
        }
        problems
    }

    fn plan(&self, context: &PlanContext<'_>) -> Result<Plan, Refusal> {
        let none = |what: String| {
            Refusal::new("no-match", what).hint("`path` must be a regular file with some content")
        };
        let path = self.path.display();
        let found = context
            .host
            .file(&self.path)
            .map_err(|error| none(format!("{path}: {error}")))?;
        context.protected_paths.check(&found.path)?;
        let is = found.file.length;
        if is > MAX_FILE.0 {
            return Err(Refusal::new(
                "too-large",
                format!(
                    "{path} has {}, and a copy is made of at most {MAX_FILE}",
                    Size(is)
                ),
            )
            .hint("choose a smaller file; `file-error` needs no copy"));
        }
        let length = self.length.map(|length| length.of(is));
        if length.is_some_and(|length| length >= is) {
            return Err(none(format!(
                "{path} has {is} bytes, so nothing would be cut off"
            )));
        }
        let from = self.from.map_or(0, |Size(from)| from);
        let until = length.unwrap_or(is);
        let wanted = match (self.bytes, self.length) {
            (Some(bytes), _) => bytes,
            (None, Some(_)) => 0,
            (None, None) => 1,
        };
        let room = until.saturating_sub(from);
        if room < u64::from(wanted) {
            return Err(none(format!(
                "{path}: there are {room} bytes from {from} on, and {wanted} are to be wrong"
            )));
        }
        let mut patches: BTreeMap<u64, FilePatch> = BTreeMap::new();
        let mut numbers = Numbers(context.seed);
        while patches.len() < wanted as usize {
            let offset = from + numbers.next() % room;
            if patches.contains_key(&offset) {
                continue;
            }
            let bytes = context
                .host
                .file_bytes(&found.path, offset, 1)
                .map_err(|error| none(format!("{path}: {error}")))?;
            let Some(byte) = bytes.first() else {
                return Err(none(format!("{path} became shorter meanwhile")));
            };
            // Any other value than what is there.
            let wrong = byte.wrapping_add(1 + (numbers.next() % 255) as u8);
            let bytes = vec![wrong];
            patches.insert(offset, FilePatch { offset, bytes });
        }
        let mut notes = vec!["programs that have the file open go on with the original".to_owned()];
        if found.links > 1 {
            notes.push(format!(
                "the file has {} names: the others go on showing the original",
                found.links
            ));
        }
        let cut = length.map(|length| format!(", cut from {is} to {length} bytes"));
        Ok(Plan {
            victims: vec![Victim {
                kind: "file".into(),
                id: found.path.display().to_string(),
                name: format!("{path}: {wanted} wrong bytes{}", cut.unwrap_or_default()),
            }],
            changes: vec![Change::Replace(ReplaceFile {
                mark: context.mark(0),
                path: found.path,
                original: found.file,
                length,
                patches: patches.into_values().collect(),
            })],
            notes,
            ..Plan::default()
        })
    }
}

/// Numbers from a seed (SplitMix64): the same for the same plan.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
