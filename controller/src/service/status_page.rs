//! The public's status page: one HTML file without scripts, which a web server of the owner's serves. It has outward updates and nothing
//! else, and says when it was written, because a file cannot know how old it is.

use super::Service;
use super::status_updates::OutwardUpdate;
use crate::files::sync_parent;
use crate::store::{StoreError, StoreErrorKind};
use backburn_experiments::Problem;
use backburn_experiments::redact::in_html;
use backburn_experiments::terminal_text::escape;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the page is written at least, so that it says by itself that an update is overdue.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// How long an update stays on the page.
const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// A page for the public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StatusPage {
    /// The file to write, an absolute path. It is replaced as a whole, and everybody may read it.
    pub file: PathBuf,
    /// The title of the page. Default: `Status`.
    #[serde(default = "default_title")]
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
}

fn default_title() -> String {
    "Status".into()
}

impl StatusPage {
    /// All problems of this page.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let is_file = self.file.is_absolute() && self.file.file_name().is_some();
        match is_file {
            true => Vec::new(),
            false => vec![
                Problem::new("$.status-page.file", "expected the absolute path of a file")
                    .hint("give e.g. `/srv/status/index.html`"),
            ],
        }
    }
}

/// An update on the page, and whether what it is of is over.
struct ShownUpdate {
    update: OutwardUpdate,
    is_over: bool,
}

impl Service {
    /// Lets the status page be written again.
    pub(super) fn status_changed(&self) {
        self.status.send_modify(|count| *count += 1);
    }

    /// Writes the status page that the policy names, when something changes and from time to time, for as long as the controller runs.
    pub async fn keep_status_page(self: Arc<Self>) {
        let mut changed = self.status.subscribe();
        let mut days = self.game_days.subscribe();
        let mut is_failing = false;
        loop {
            changed.borrow_and_update();
            days.borrow_and_update();
            let service = Arc::clone(&self);
            // A disk that hangs delays nothing else.
            let written = tokio::task::spawn_blocking(move || service.write_status_page()).await;
            let Ok(written) = written else { return };
            if let Err(why) = &written
                && !is_failing
            {
                tracing::error!(why, "the status page could not be written");
            }
            is_failing = written.is_err();
            tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
                changed = changed.changed() => if changed.is_err() { return },
                changed = days.changed() => if changed.is_err() { return },
            }
        }
    }

    /// How often the status page could not be written since the start: it is tried at least once a minute.
    pub fn status_page_failures(&self) -> u64 {
        self.status_page_failures.load(Ordering::Relaxed)
    }

    /// Writes the status page, if the policy names one.
    ///
    /// # Errors
    /// What failed, as text.
    pub fn write_status_page(&self) -> Result<(), String> {
        let written = self.try_to_write_status_page();
        if written.is_err() {
            self.status_page_failures.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn try_to_write_status_page(&self) -> Result<(), String> {
        let policy = self.policy();
        let Some(page) = &policy.status_page else {
            return Ok(());
        };
        let now = Timestamp::now();
        let updates = self.shown_updates(now).map_err(|error| error.to_string())?;
        let html = render(page, &updates, now);
        write_publicly(&page.file, &html)
            .map_err(|error| format!("{}: {error}", page.file.display()))
    }

    /// The updates of late, the newest first.
    fn shown_updates(&self, now: Timestamp) -> Result<Vec<ShownUpdate>, StoreError> {
        let updates = self.outward_updates()?.into_iter().rev();
        let late = updates.filter(|update| now.duration_since(update.at) < SHOWN_FOR);
        let with_end = late.map(|update| {
            let is_over = match self.is_update_over(&update) {
                // What the store keeps no longer is over.
                Err(error) if error.kind == StoreErrorKind::NotThere => true,
                is_over => is_over?,
            };
            Ok(ShownUpdate { update, is_over })
        });
        with_end.collect()
    }
}

fn time(at: Timestamp) -> String {
    let machine = at.strftime("%FT%TZ");
    format!(
        "<time datetime=\"{machine}\">{}</time>",
        at.strftime("%F %H:%M UTC")
    )
}

fn render(page: &StatusPage, updates: &[ShownUpdate], now: Timestamp) -> String {
    let title = in_html(&escape(&page.title));
    let next = match updates.first() {
        Some(newest) if !newest.is_over => match newest.update.next {
            Some(next) if next < now => {
                format!("The next update was due at {}, and is late.", time(next))
            }
            Some(next) => format!("The next update is due at {}.", time(next)),
            None => "The next update comes when there is news.".into(),
        },
        Some(_) => "This is over; no update is due.".into(),
        None => "There is nothing to report.".into(),
    };
    let mut articles = String::new();
    for (index, shown) in updates.iter().enumerate() {
        let class = if index == 0 && !shown.is_over {
            " class=\"open\""
        } else {
            ""
        };
        let (at, text) = (time(shown.update.at), in_html(&shown.update.text));
        articles.push_str(&format!(
            "<article{class}><h2>{at}</h2><p>{text}</p></article>\n"
        ));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
<title>{title}</title>\n<style>\n\
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}\n\
body {{ max-width: 42rem; margin: 0 auto; padding: 1rem; }}\n\
article {{ border-left: .25rem solid; padding-left: 1rem; margin: 1.5rem 0; overflow-wrap: anywhere; opacity: .8; }}\n\
article.open {{ border-color: #b45309; opacity: 1; }}\n\
h2 {{ font-size: 1rem; margin: 0; }}\n\
</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{next}</p>\n{articles}</main>\n\
<footer><p>This page was written at {}.</p></footer>\n</body>\n</html>\n",
        time(now)
    )
}

/// Replaces a file that everybody may read, atomically.
fn write_publicly(path: &Path, content: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)?;
    file.write_all(content.as_bytes())?;
    // A umask may have taken it from those who serve it.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> StatusPage {
        StatusPage {
            file: "/x/index.html".into(),
            title: "Shop <b>".into(),
        }
    }

    fn shown(text: &str, next: Option<&str>, is_over: bool) -> ShownUpdate {
        let update = OutwardUpdate {
            of: "gd-1".into(),
            is_game_day: true,
            at: "2026-03-01T12:00:00Z".parse().unwrap(),
            text: escape(text).into_owned(),
            next: next.map(|next| next.parse().unwrap()),
        };
        ShownUpdate { update, is_over }
    }

    #[test]
    fn status_page_says_what_is_due_and_nothing_is_markup() {
        let now = "2026-03-01T12:10:00Z".parse().unwrap();
        let html = render(
            &page(),
            &[shown(
                "<script>alert(1)</script> & \u{202e}",
                Some("2026-03-01T12:30:00Z"),
                false,
            )],
            now,
        );
        assert!(
            html.contains("&lt;script&gt;")
                && !html.contains("<script")
                && !html.contains('\u{202e}'),
            "{html}"
        );
        assert!(html.contains("<title>Shop &lt;b&gt;</title>"), "{html}");
        assert!(
            html.contains(
                "is due at <time datetime=\"2026-03-01T12:30:00Z\">2026-03-01 12:30 UTC</time>"
            ),
            "{html}"
        );
        assert!(
            html.contains("written at <time datetime=\"2026-03-01T12:10:00Z\">"),
            "{html}"
        );
        let late = render(
            &page(),
            &[shown("Slow", Some("2026-03-01T12:05:00Z"), false)],
            now,
        );
        assert!(
            late.contains("was due at") && late.contains("is late"),
            "{late}"
        );
        let over = render(
            &page(),
            &[shown("Slow", Some("2026-03-01T12:05:00Z"), true)],
            now,
        );
        assert!(
            over.contains("no update is due") && !over.contains("late"),
            "{over}"
        );
        assert!(render(&page(), &[], now).contains("nothing to report"));
    }
}
