//! Runs that wait for approval. What is approved is a plan: a run that would do anything else is not started, but waits for
//! the approval of its new plan.

use super::policy_rule::PolicyDecision;
use super::{Actor, RequestedDocument, RunSpec, RunStartError, Service};
use crate::agent_pool::AgentPool;
use crate::fleet::Reservation;
use crate::runner::{self, Preview, RunApproval};
use crate::store::{ApprovalRecord, NewRun, StoreError, StoreErrorKind, Trigger, WaitingRun};
use backburn_experiments::check::{self, Experiment};
use backburn_experiments::wire::Refusal;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The fewest digits of a plan's fingerprint that identify it.
const MIN_FINGERPRINT_DIGITS: usize = 8;

/// What a waiting run would do, as people are shown it: without secrets.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApprovalPlan {
    /// The agents and what each would do.
    pub preview: Preview,
    /// The variables of the request.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// The lock that the run takes when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

impl Service {
    /// The runs that wait for approval, earliest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn waiting_runs(&self) -> Result<Vec<WaitingRun>, StoreError> {
        self.store.waiting_runs()
    }

    /// The run of this id, which waits for approval.
    ///
    /// # Errors
    /// It does not wait, or the store failed.
    pub fn waiting_run(&self, id: &str) -> Result<WaitingRun, RunStartError> {
        let mut all = self.store.waiting_runs()?.into_iter();
        (all.find(|waiting| waiting.approval.run == id)).ok_or_else(|| not_waiting(id).into())
    }

    /// Opens a run that waits for approval by this rule, with the plan of what it would do. If it could not start, it does
    /// not wait either.
    pub(super) fn await_approval(
        self: &Arc<Self>,
        new: &NewRun,
        spec: &RunSpec,
        experiment: &Experiment,
        rule: String,
    ) -> Result<WaitingRun, RunStartError> {
        let (plan, fingerprint) = self.plan_for_approval(&new.id, new.seed, spec, experiment)?;
        let lasts =
            SignedDuration::try_from(self.approval_expires.0).unwrap_or(SignedDuration::MAX);
        let expires = new.started.checked_add(lasts).unwrap_or(Timestamp::MAX);
        let approval = ApprovalRecord {
            run: new.id.clone(),
            person: spec.person.clone(),
            rule,
            variables: spec.variables.clone(),
            plan: Some(plan),
            fingerprint: Some(fingerprint),
            expires,
        };
        self.store.open_waiting_run(new, &approval)?;
        let run = self.store.run(&new.id)?;
        let waiting = WaitingRun { run, approval };
        self.notify_wait(&waiting);
        Ok(waiting)
    }

    /// What the run would do now, and the fingerprint of that.
    fn plan_for_approval(
        self: &Arc<Self>,
        run: &str,
        seed: u64,
        spec: &RunSpec,
        experiment: &Experiment,
    ) -> Result<(Value, String), RunStartError> {
        let pool =
            AgentPool::Fleet(Reservation::new(Arc::clone(&self.fleet), run).within(&spec.teams));
        let access = self.policy().host_access();
        let preview = runner::preview(
            experiment,
            seed,
            check::DEFAULT_SAMPLING_INTERVAL,
            &access,
            pool,
        );
        let preview = on_own_thread(preview)?;
        let refused = preview.injections.iter().find_map(|injection| {
            let refusal = injection.refusal.as_ref()?;
            let what = format!(
                "action `{}` on `{}`: {}",
                injection.activity, injection.agent, refusal.what
            );
            Some(Refusal {
                what,
                ..refusal.clone()
            })
        });
        if let Some(refusal) = refused {
            return Err(refusal.into());
        }
        if let Some(missing) = preview.missing.first() {
            return Err(Refusal::new("missing", missing.what.clone()).into());
        }
        self.own_by_agents(run, &preview.agents)?;
        let fingerprint = preview.fingerprint.clone();
        let variables = experiment
            .redactor
            .value(Value::Object(spec.variables.clone()));
        let plan = ApprovalPlan {
            preview,
            variables: variables.as_object().cloned().unwrap_or_default(),
            lock: spec.lock.clone(),
        };
        Ok((json!(plan), fingerprint))
    }

    /// Approves a waiting run and starts it, if it would still do what its plan says. `plan` is the fingerprint of the plan
    /// that the approver has seen, or its beginning; none stands for the stored plan. Returns the run's id.
    ///
    /// # Errors
    /// No run waits under this id, the same person asked for it, a rule forbids it now, or its plan has changed: then it waits
    /// for the approval of the new plan.
    pub fn approve(
        self: &Arc<Self>,
        id: &str,
        plan: Option<&str>,
        who: &Actor,
    ) -> Result<String, RunStartError> {
        self.may_start()?;
        self.end_lapsed_waits()?;
        let waiting = self.waiting_run(id)?;
        if is_asker(&waiting, who) {
            let what = match waiting.run.new.who == who.name {
                true => format!("`{}` asked for this run", who.name),
                false => format!(
                    "`{}`, who has token `{}`, asked for this run",
                    who.person, who.name
                ),
            };
            return Err(Refusal::new("policy", what)
                .hint("another person must approve it")
                .into());
        }
        let (spec, experiment) = self.waiting_spec(&waiting)?;
        let seed = waiting.run.new.seed;
        match self.decide(&spec, Some(&who.person), &experiment, seed)? {
            PolicyDecision::Allow => {}
            PolicyDecision::Refuse(refusal) => return Err(refusal.into()),
            PolicyDecision::RequireApproval(rule) => {
                return Err(super::runs::approval_required(&rule).into());
            }
        }
        let (now_plan, fingerprint) = self.plan_for_approval(id, seed, &spec, &experiment)?;
        let stored = waiting.approval.fingerprint.as_deref();
        if stored != Some(fingerprint.as_str()) {
            let why = difference(waiting.approval.plan.as_ref(), &now_plan);
            let approval = ApprovalRecord {
                plan: Some(now_plan),
                fingerprint: Some(fingerprint),
                ..waiting.approval
            };
            self.store.replace_approval(&approval)?;
            self.audit(who, "approve", id, "plan changed", json!({"why": why}))?;
            let what = format!("run `{id}` would not do what was approved: {why}");
            return Err(Refusal::new("approval", what)
                .hint(format!("it waits on, and nothing was started: `backburn approvals {id}` shows its new plan, and `backburn approve {id}` approves that"))
                .into());
        }
        if let Some(seen) = plan
            && (seen.len() < MIN_FINGERPRINT_DIGITS || !fingerprint.starts_with(seen))
        {
            let what = format!(
                "plan `{}` is not the plan of run `{id}`",
                seen.escape_debug()
            );
            return Err(Refusal::new("approval", what)
                .hint(format!("`backburn approvals {id}` shows its plan"))
                .into());
        }
        let held = self.take_lock(spec.lock.as_deref(), &waiting.run.new)?;
        self.audit_start(&waiting.run.new, None, Some(&who.name))?;
        let taken = self
            .store
            .take_waiting_run(id, Some(&fingerprint), Timestamp::now())?;
        let Some(taken) = taken else {
            return Err(not_waiting(id).into());
        };
        let approval = RunApproval {
            by: who.name.clone(),
            fingerprint,
        };
        self.launch(
            &taken.run.new,
            experiment,
            spec,
            Some((approval, who.person.clone())),
            held,
        )
    }

    /// What a waiting run was asked for with.
    fn waiting_spec(&self, waiting: &WaitingRun) -> Result<(RunSpec, Experiment), RunStartError> {
        let new = &waiting.run.new;
        let Some(reference) = &new.experiment else {
            return Err(not_waiting(&new.id).into());
        };
        let kept = self
            .store
            .experiment_with_secrets(&reference.name, Some(reference.version))?;
        let spec = RunSpec {
            document: RequestedDocument::Stored(kept.document),
            reference: Some(reference.clone()),
            seed: Some(new.seed),
            variables: waiting.approval.variables.clone(),
            who: new.who.clone(),
            person: waiting.approval.person.clone(),
            teams: match self.standing(&new.who, &waiting.approval.person)? {
                Ok(asker) => asker.teams,
                Err(why) => return Err(why.into()),
            },
            because: Trigger::Asked,
            lock: (waiting.approval.plan.as_ref())
                .and_then(|plan| plan.get("lock")?.as_str().map(str::to_owned)),
        };
        let experiment = self.load_requested(&spec).map_err(RunStartError::Invalid)?;
        Ok((spec, experiment))
    }

    /// Ends a run's wait without a start, because somebody does not approve it.
    ///
    /// # Errors
    /// No run waits under this id, the caller asked for it, or the store failed.
    pub fn reject(
        self: &Arc<Self>,
        id: &str,
        why: Option<&str>,
        who: &Actor,
    ) -> Result<(), RunStartError> {
        let waiting = self.waiting_run(id)?;
        if is_asker(&waiting, who) {
            let what = format!("`{}` asked for this run", who.name);
            return Err(Refusal::new("policy", what)
                .hint(format!("`backburn withdraw {id}` withdraws it"))
                .into());
        }
        self.audit(who, "reject", id, "asked", json!({"why": why}))?;
        let said = why.map(|why| format!(": {why}")).unwrap_or_default();
        let refusal = Refusal::new("approval", format!("rejected by `{}`{said}", who.name));
        self.end_wait(id, &refusal)
    }

    /// Ends the wait of a run that the caller asked for.
    ///
    /// # Errors
    /// No run waits under this id, somebody else asked for it, or the store failed.
    pub fn withdraw(self: &Arc<Self>, id: &str, who: &Actor) -> Result<(), RunStartError> {
        let waiting = self.waiting_run(id)?;
        if !is_asker(&waiting, who) {
            let what = format!("`{}` asked for this run", waiting.run.new.who);
            return Err(Refusal::new("policy", what)
                .hint(format!("`backburn reject {id}` rejects it"))
                .into());
        }
        self.audit(who, "withdraw", id, "asked", json!({}))?;
        let refusal = Refusal::new("approval", format!("withdrawn by `{}`", who.name));
        self.end_wait(id, &refusal)
    }

    /// Ends a run's wait without a start. That somebody else has ended it meanwhile is reported as an error.
    pub(super) fn end_wait(self: &Arc<Self>, id: &str, why: &Refusal) -> Result<(), RunStartError> {
        let taken = self.store.take_waiting_run(id, None, Timestamp::now())?;
        let Some(taken) = taken else {
            return Err(not_waiting(id).into());
        };
        self.close_not_started(&taken.run.new, None, why)?;
        Ok(())
    }

    /// Ends the waits that nobody can end by an approval any more: they have expired, their experiment was removed, or who
    /// asked may not start runs any more.
    ///
    /// # Errors
    /// The store failed.
    pub fn end_lapsed_waits(self: &Arc<Self>) -> Result<(), StoreError> {
        for waiting in self.store.waiting_runs()? {
            let Some(why) = self.lapse(&waiting)? else {
                continue;
            };
            let detail = json!({"why": why.what});
            self.audit_own("end-wait", &waiting.approval.run, "done", detail)?;
            // Anything else means that somebody has ended it meanwhile.
            if let Err(RunStartError::Store(error)) = self.end_wait(&waiting.approval.run, &why) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Why a wait is over, if it is.
    fn lapse(&self, waiting: &WaitingRun) -> Result<Option<Refusal>, StoreError> {
        let new = &waiting.run.new;
        if waiting.approval.expires <= Timestamp::now() {
            let what = format!(
                "nobody approved it before {}",
                waiting.approval.expires.strftime("%F %T UTC")
            );
            return Ok(Some(Refusal::new("approval", what).hint(
                "start it again; the controller's `--approval-expires` says how long a run waits",
            )));
        }
        if let Some(experiment) = &new.experiment {
            match self.store.experiment(&experiment.name, None) {
                Err(error) if error.kind == StoreErrorKind::NotThere => {
                    let what = format!("experiment `{}` was removed", experiment.name);
                    return Ok(Some(Refusal::new("approval", what)));
                }
                found => drop(found?),
            }
        }
        Ok(match self.standing(&new.who, &waiting.approval.person)? {
            Ok(_) => None,
            Err(why) => Some(Refusal::new(
                "approval",
                format!("{}; it asked for this run", why.what),
            )),
        })
    }
}

fn not_waiting(id: &str) -> Refusal {
    Refusal::new(
        "not-there",
        format!("no run `{}` waits for approval", id.escape_debug()),
    )
    .hint("`backburn approvals` lists those that do")
}

/// Whether the same person asked for the run, with whatever token.
fn is_asker(waiting: &WaitingRun, who: &Actor) -> bool {
    waiting.run.new.who == who.name || waiting.approval.person == who.person
}

/// What is different in a plan, in a few words.
fn difference(before: Option<&Value>, now: &Value) -> String {
    let plan = |plan: &Value| serde_json::from_value::<ApprovalPlan>(plan.clone()).ok();
    let (Some(before), Some(now)) = (before.and_then(plan), plan(now)) else {
        return "its plan was not stored when it was asked for".into();
    };
    if before.preview.agents != now.preview.agents {
        return format!(
            "it would run on {} instead of {}",
            now.preview.agents.join(", "),
            before.preview.agents.join(", ")
        );
    }
    let pairs = before
        .preview
        .injections
        .iter()
        .zip(&now.preview.injections);
    for (one, other) in pairs {
        let victims = |plan: &runner::PreviewedInjection| -> Vec<String> {
            let victims = plan.plan.iter().flat_map(|plan| &plan.victims);
            victims.map(|victim| victim.name.clone()).collect()
        };
        let (were, are) = (victims(one), victims(other));
        if were != are {
            return format!(
                "`{}` on `{}` would hit {} instead of {}",
                other.activity,
                other.agent,
                are.join(", "),
                were.join(", ")
            );
        }
    }
    "its victims have been replaced by others of the same names, or its addresses have changed"
        .into()
}

/// Does asynchronous work on a thread of its own, so that the caller may be a task or not.
fn on_own_thread<T: Send>(
    work: impl Future<Output = Result<T, Refusal>> + Send,
) -> Result<T, Refusal> {
    let failed = |why: String| Refusal::new("host", why);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| failed(format!("no runtime could be built: {error}")))?;
            runtime.block_on(work)
        });
        let done = thread.join();
        done.unwrap_or_else(|_| {
            Err(failed(
                "the plan could not be made because of a bug in Backburn".into(),
            ))
        })
    })
}
