//! Notifications: what happens is told to webhooks and mail servers that the policy names. A notification is handed to a thread of its own and never
//! delays a run; what cannot be delivered is tried again a few times, then logged and counted.

use super::notification_text::{Notification, NotificationFormat, NotificationKind};
use super::{MailTarget, Service, lock};
use crate::files;
use crate::providers::{HostAccess, ProbeContext, measure};
use crate::smtp::{self, MailError};
use backburn_experiments::document::Provider;
use backburn_experiments::wire::ProbeOutcome;
use backburn_experiments::{HumanDuration, Problem};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// How many notifications wait for the thread, at most.
const QUEUE_LENGTH: usize = 256;
/// How many notifications wait for one destination, at most. Those beyond are dropped, and counted as failed.
const MAX_PENDING: usize = 64;
/// How many notifications are sent to one destination at a time.
const MAX_CONCURRENT: usize = 4;
/// How long a destination may take to answer.
const ANSWER_TIMEOUT: HumanDuration = HumanDuration::seconds(10);
/// How long to wait before the second, the third and the fourth attempt.
const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
];
/// How long the same is not told again, e.g. that an agent does not answer.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Where the controller tells what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Notification")]
pub struct NotificationTarget {
    /// The name of the destination, in the log and in metrics.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The address, `http://` or `https://`. It obeys `allow-http` and `deny-http`. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file that contains the address instead, because the address of a webhook is a secret. It is read for each notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A mail server instead of an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<MailTarget>,
    /// A file that contains the value of the header `Authorization`, e.g. `Bearer TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// What the destination understands. Default: `json`.
    #[serde(default)]
    pub format: NotificationFormat,
    /// What it is told. Left out: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<NotificationKind>>,
}

impl NotificationTarget {
    /// All problems of these destinations.
    pub(super) fn problems(targets: &[NotificationTarget]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let at = format!("$.notifications[{index}]");
            match (&target.url, &target.url_file) {
                _ if target.smtp.is_some() => problems.extend(target.mail_problems(&at)),
                (Some(url), None) if url.starts_with("http://") || url.starts_with("https://") => {}
                (Some(_), None) => problems.push(Problem::new(
                    format!("{at}.url"),
                    "expected an address that begins with `https://` or `http://`",
                )),
                (None, Some(_)) => {}
                _ => problems.push(
                    Problem::new(at.clone(), "expected one of `url`, `url-file` and `smtp`")
                        .hint("`url-file` names a file that contains the address"),
                ),
            }
            if targets[..index]
                .iter()
                .any(|before| before.name == target.name)
            {
                let what = format!("the name `{}` is used twice", target.name);
                problems.push(Problem::new(format!("{at}.name"), what));
            }
        }
        problems
    }

    /// All problems of a destination that is a mail server.
    fn mail_problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.url.is_some() || self.url_file.is_some() {
            let what = "expected one of `url`, `url-file` and `smtp`";
            problems.push(Problem::new(at, what).hint("give each a name of its own"));
        }
        if self.authorization_file.is_some() || self.format != NotificationFormat::Json {
            let what = "`authorization-file` and `format` are for webhooks";
            problems.push(Problem::new(at, what).hint("leave them out: mail is text"));
        }
        let at = format!("{at}.smtp");
        problems.extend(self.smtp.iter().flat_map(|smtp| smtp.problems(&at)));
        problems
    }

    fn wants(&self, kind: NotificationKind) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| events.contains(&kind))
    }

    /// The request that tells this destination of a notification.
    fn request(&self, told: &Notification) -> Result<Provider, String> {
        let read = |file: &PathBuf| {
            let text =
                files::read_text(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => read(file)?,
            (None, None) => return Err("there is no address".into()),
        };
        let mut headers = json!({
            "Content-Type": "application/json",
            "Idempotency-Key": told.id,
        });
        if let Some(file) = &self.authorization_file {
            headers["Authorization"] = read(file)?.into();
        }
        let provider = json!({
            "type": "http",
            "url": url,
            "method": "POST",
            "headers": headers,
            "arguments": told.body(self.format),
            "timeout": ANSWER_TIMEOUT,
        });
        let mut provider: Provider =
            serde_json::from_value(provider).map_err(|error| error.to_string())?;
        if let Provider::Http(http) = &mut provider {
            // What another address answers to a GET would look like a delivery.
            http.refuses_redirects = true;
        }
        Ok(provider)
    }
}

/// What came of notifications since the start.
#[derive(Debug, Default)]
pub(super) struct NotificationCounts {
    sent: AtomicU64,
    failed: AtomicU64,
}

/// Tells destinations what happens.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    queue: std::sync::OnceLock<Option<mpsc::Sender<NotificationJob>>>,
    counts: Arc<NotificationCounts>,
    /// When the same was told last, by what it is about.
    told: std::sync::Mutex<BTreeMap<(NotificationKind, String), Timestamp>>,
}

/// A notification for one destination.
struct NotificationJob {
    target: NotificationTarget,
    told: Arc<Notification>,
    access: HostAccess,
}

impl Service {
    /// Whether any destination is told of this.
    pub(super) fn is_notified(&self, kind: NotificationKind) -> bool {
        let policy = self.policy();
        policy.notifications.iter().any(|target| target.wants(kind))
    }

    /// Tells the policy's destinations. Returns at once; what was told of the same within ten minutes is not told again.
    pub(super) fn notify(&self, told: Notification) {
        let policy = self.policy();
        let wanting = policy
            .notifications
            .iter()
            .filter(|target| target.wants(told.kind));
        let wanting: Vec<NotificationTarget> = wanting.cloned().collect();
        if wanting.is_empty() || !self.notifier.is_news(&told) {
            return;
        }
        let told = Arc::new(told);
        for target in wanting {
            let job = NotificationJob {
                target,
                told: Arc::clone(&told),
                access: policy.host_access(),
            };
            self.notifier.queue(job);
        }
    }

    /// How many notifications were delivered, and how many were not, since the start.
    pub fn notification_counts(&self) -> (u64, u64) {
        let counts = &self.notifier.counts;
        (
            counts.sent.load(Ordering::Relaxed),
            counts.failed.load(Ordering::Relaxed),
        )
    }
}

impl Notifier {
    fn is_news(&self, told: &Notification) -> bool {
        let mut before = lock(&self.told);
        before.retain(|_, at| told.at.duration_since(*at) < REPEAT_AFTER);
        before
            .insert((told.kind, told.about.clone()), told.at)
            .is_none()
    }

    fn queue(&self, job: NotificationJob) {
        let queue = self.queue.get_or_init(|| start(Arc::clone(&self.counts)));
        let (target, kind) = (job.target.name.clone(), job.told.kind);
        let queued = queue
            .as_ref()
            .is_some_and(|queue| queue.try_send(job).is_ok());
        if !queued {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(target, ?kind, "a notification was dropped: too many wait");
        }
    }
}

/// Starts the thread that delivers. It ends when the service does.
fn start(counts: Arc<NotificationCounts>) -> Option<mpsc::Sender<NotificationJob>> {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "notifications cannot be sent");
            return None;
        }
    };
    let run = move || {
        let tasks = tokio::task::LocalSet::new();
        runtime.block_on(tasks.run_until(deliver_all(receiver, counts)));
    };
    match std::thread::Builder::new().name("notify".into()).spawn(run) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::error!(%error, "notifications cannot be sent");
            None
        }
    }
}

/// Delivers what comes, at each destination in its order as far as it answers. One that hangs delays no other.
async fn deliver_all(mut jobs: mpsc::Receiver<NotificationJob>, counts: Arc<NotificationCounts>) {
    let mut lanes: BTreeMap<String, (Arc<Semaphore>, Arc<Semaphore>)> = BTreeMap::new();
    while let Some(job) = jobs.recv().await {
        let new = || {
            (
                Arc::new(Semaphore::new(MAX_PENDING)),
                Arc::new(Semaphore::new(MAX_CONCURRENT)),
            )
        };
        let (pending, concurrent) = lanes.entry(job.target.name.clone()).or_insert_with(new);
        let (target, kind) = (job.target.name.clone(), job.told.kind);
        let Ok(place) = Arc::clone(pending).try_acquire_owned() else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                target,
                ?kind,
                "a notification was dropped: too many wait for this destination"
            );
            continue;
        };
        let (concurrent, counts) = (Arc::clone(concurrent), Arc::clone(&counts));
        tokio::task::spawn_local(async move {
            let _place = place;
            match deliver(&job, &concurrent).await {
                Ok(()) => counts.sent.fetch_add(1, Ordering::Relaxed),
                Err(why) => {
                    tracing::warn!(target, ?kind, why, "a notification was not delivered");
                    counts.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
        });
    }
}

/// Why one attempt did not deliver everything, and whether another one would be in vain.
type Failed = (String, bool);

async fn deliver(job: &NotificationJob, concurrent: &Semaphore) -> Result<(), String> {
    // Who has got a mail does not get it again.
    let mut left = job.target.smtp.as_ref().map(|smtp| smtp.to.clone());
    let mut delays = RETRY_DELAYS.into_iter();
    loop {
        let tried = {
            let _turn = concurrent
                .acquire()
                .await
                .map_err(|error| error.to_string())?;
            match (&job.target.smtp, &mut left) {
                (Some(smtp), Some(left)) => send_mail(smtp, job, left).await,
                _ => call_webhook(job).await,
            }
        };
        let Err((why, is_final)) = tried else {
            return Ok(());
        };
        match delays.next().filter(|_| !is_final) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(why),
        }
    }
}

/// Sends a mail to those who are left, and leaves those who are to be tried again.
async fn send_mail(
    smtp: &MailTarget,
    job: &NotificationJob,
    left: &mut Vec<String>,
) -> Result<(), Failed> {
    let server = smtp.server().map_err(|why| (why, true))?;
    let mail = smtp.mail(&job.told);
    let sent = smtp::send(&server, &mail, left, &job.access.destinations).await;
    let delivery = sent.map_err(|error| {
        let is_final = matches!(error, MailError::Permanent(_));
        (error.to_string(), is_final)
    })?;
    for (who, why) in &delivery.refused {
        tracing::warn!(
            target = job.target.name,
            receiver = who,
            why,
            "a mail was refused for a receiver"
        );
    }
    *left = delivery.later.iter().map(|(who, _)| who.clone()).collect();
    match (delivery.later.first(), delivery.refused.first()) {
        (Some((who, why)), _) => Err((format!("not taken for {who} yet: {why}"), false)),
        (None, Some((who, why))) => Err((format!("refused for {who}: {why}"), true)),
        (None, None) => Ok(()),
    }
}

async fn call_webhook(job: &NotificationJob) -> Result<(), Failed> {
    let provider = (job.target.request(&job.told)).map_err(|why| (why, true))?;
    let context = ProbeContext {
        access: job.access.clone(),
        ..ProbeContext::default()
    };
    match measure(&provider, Some(ANSWER_TIMEOUT), &context).await {
        ProbeOutcome::Output(answer) => match answer["status"].as_u64() {
            Some(200..=299) => Ok(()),
            Some(status @ (408 | 429 | 500..=599)) => {
                Err((format!("it answered with status {status}"), false))
            }
            status => Err((
                format!("it answered with status {}", status.unwrap_or_default()),
                true,
            )),
        },
        ProbeOutcome::NoAnswer(why) => Err((why, false)),
        ProbeOutcome::Broken(why) => Err((why, true)),
    }
}
