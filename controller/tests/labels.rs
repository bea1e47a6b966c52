//! Labels of agents: what is granted by tokens and admins, what agents say of themselves, and what each counts for.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod support;

use backburn::store::Role;
use support::api::TestController;

use backburn::fleet::{Fleet, GrantedLabels, Reservation};
use backburn::pki::agent_registry::{AgentRegistry, LabelChange};
use backburn::pki::ca::AgentIdentity;
use backburn::pki::enrolment::{CertificateReason, EnrolmentPolicy};
use backburn::runner::select_agents;
use backburn::store::{Hash, JoinTokenRecord, SqliteStore, Store};
use backburn_experiments::HumanDuration;
use backburn_experiments::join::PresentedToken;
use backburn_experiments::labels::Labels;
use backburn_experiments::wire::{Hello, Report};
use jiff::Timestamp;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Manners, load};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn confirmed(pairs: &[(&str, &str)]) -> GrantedLabels {
    GrantedLabels {
        labels: labels(pairs),
        is_confirmed: true,
    }
}

fn fleet() -> Arc<Fleet> {
    Arc::new(Fleet::new(HumanDuration::seconds(30)))
}

/// An agent that connects from this address and says this of itself. It disconnects when the stream is dropped.
async fn connect(
    fleet: &Arc<Fleet>,
    name: &str,
    peer: &str,
    said: &[(&str, &str)],
) -> DuplexStream {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let (serving, owner) = (Arc::clone(fleet), name.to_owned());
    let peer = peer.parse().unwrap();
    tokio::spawn(async move { serving.serve(&owner, peer, ours, || false).await });
    let hello = Report::Hello(Hello {
        agent: "somebody else".into(),
        labels: labels(said),
        ..Hello::default()
    });
    let line = serde_json::to_string(&hello).unwrap() + "\n";
    theirs.write_all(line.as_bytes()).await.unwrap();
    let mut changes = fleet.changes();
    let is_in = changes.wait_for(|_| fleet.get(name).is_some());
    tokio::time::timeout(Duration::from_secs(30), is_in)
        .await
        .unwrap()
        .unwrap();
    theirs
}

/// The labels by which the only agent can be selected.
fn selectable(fleet: &Arc<Fleet>) -> Labels {
    let inventory = Reservation::new(Arc::clone(fleet), "test")
        .inventory()
        .unwrap();
    inventory.selectable[0].1.clone()
}

#[tokio::test]
async fn label_that_an_agent_says_selects_nothing_and_meets_no_condition() {
    let fleet = fleet();
    let said = [
        ("role", "db"),
        ("team", "payments"),
        ("host", "db-1"),
        ("address", "0.0.0.0/0"),
    ];
    let _link = connect(&fleet, "a", "10.0.0.7:40000", &said).await;
    let expected = labels(&[("address", "10.0.0.7"), ("host", "db-1")]);
    assert_eq!(selectable(&fleet), expected);
    assert_eq!(fleet.get("a").unwrap().facts, expected);

    // The policy sees what is granted, and nothing that the agent says: not even a fact.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&seen);
    let mut reservation =
        Reservation::new(Arc::clone(&fleet), "test").permitted_by(Box::new(move |agents, all| {
            asked.lock().unwrap().push((agents.clone(), all.to_vec()));
            Ok(())
        }));
    let (events, _heard) = mpsc::unbounded_channel();
    let reserved = reservation
        .reserve(&["a".to_owned()].into(), &events)
        .unwrap();
    let none = ("a".to_owned(), Labels::new());
    assert_eq!(*seen.lock().unwrap(), [([none.clone()].into(), vec![none])]);
    assert_eq!(reserved[0].hello.labels, expected);
}

#[tokio::test]
async fn label_that_is_granted_wins_over_a_fact_and_changes_at_once() {
    let fleet = fleet();
    fleet.grant("a", confirmed(&[("role", "db"), ("os", "hardened")]));
    let said = [("os", "debian"), ("role", "web")];
    let _link = connect(&fleet, "a", "[::ffff:10.0.0.7]:40000", &said).await;
    let expected = [("address", "10.0.0.7"), ("os", "hardened"), ("role", "db")];
    assert_eq!(selectable(&fleet), labels(&expected));
    fleet.grant("a", confirmed(&[("address", "10.9.9.9")]));
    let expected = [("address", "10.9.9.9"), ("os", "debian")];
    assert_eq!(selectable(&fleet), labels(&expected));
    assert_eq!(fleet.get("a").unwrap().facts, labels(&[("os", "debian")]));
}

#[tokio::test]
async fn target_that_is_given_a_secret_is_selected_by_confirmed_labels_only() {
    let fleet = fleet();
    let said = [("host", "vault-1"), ("role", "vault")];
    let _link = connect(&fleet, "a", "10.0.0.7:40000", &said).await;
    let experiment = |target: serde_json::Value| {
        load(&json!({
            "title": "t", "description": "d",
            "secrets": {"own": {"key": "a-long-secret"}},
            "targets": {"t": target},
            "method": [{"type": "probe", "name": "asks", "from": "t", "provider":
                {"type": "http", "url": "http://10.0.0.7/", "headers": {"Authorization": "${key}"}}}],
        }))
    };
    let picked = |target: serde_json::Value| {
        let inventory = Reservation::new(Arc::clone(&fleet), "test")
            .inventory()
            .unwrap();
        select_agents(&experiment(target), &inventory, 7)
    };
    let (by_fact, by_label) = (
        json!({"labels": {"host": "vault-1"}}),
        json!({"labels": {"role": "vault"}}),
    );
    let refusal = picked(by_fact.clone()).unwrap_err();
    assert_eq!(refusal.rule, "no-match");
    assert!(refusal.what.contains("secret"), "{refusal}");
    assert!(refusal.hint.unwrap().contains("granted"));
    fleet.grant(
        "a",
        GrantedLabels {
            labels: labels(&[("role", "vault")]),
            is_confirmed: false,
        },
    );
    picked(by_label.clone()).unwrap_err();
    fleet.grant("a", confirmed(&[("role", "vault")]));
    assert_eq!(picked(by_label).unwrap(), ["a".to_owned()].into());
    picked(by_fact.clone()).unwrap_err();
    fleet.grant("a", confirmed(&[("host", "vault-1")]));
    assert_eq!(picked(by_fact).unwrap(), ["a".to_owned()].into());
}

/// A store, the fleet, and the registry between them.
struct Registry {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    registry: Arc<AgentRegistry>,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let fleet = fleet();
        let registry = AgentRegistry::load(Arc::clone(&store), &fleet).unwrap();
        Registry {
            store,
            fleet,
            registry,
            _folder: folder,
        }
    }

    /// An agent joins with a token of these labels. Returns the labels that it gets, or the rule that keeps it out.
    async fn join(
        &self,
        name: &str,
        replaces: bool,
        granted: &[(&str, &str)],
    ) -> Result<Labels, String> {
        let token = JoinTokenRecord {
            id: "t".into(),
            hash: Hash::of(b"secret"),
            who: "ada".into(),
            expires: Timestamp::MAX,
            agent: replaces.then(|| name.to_owned()),
            labels: labels(granted),
        };
        self.store.put_join_token(&token).unwrap();
        let shown = PresentedToken {
            id: "t".into(),
            secret: "secret".into(),
        };
        let said = labels(&[("team", "payments"), ("address", "::/0")]);
        let admitted = self.registry.admit(&shown, name, &said).await;
        if admitted.is_err() {
            self.store.remove_join_token("t").unwrap();
        }
        let admission = admitted.map_err(|refusal| refusal.rule)?;
        let issued = AgentIdentity {
            name: admission.name.clone(),
            serial: Timestamp::now().as_nanosecond().to_string(),
        };
        let reason = CertificateReason::Joining(&admission);
        let joined = self.registry.issue(&issued, reason, "00").await;
        joined.map_err(|refusal| refusal.rule)
    }

    fn audited(&self) -> Vec<(String, String, String)> {
        let entries = self.store.audited(0, 1000).unwrap().into_iter();
        entries
            .map(|entry| (entry.record.who, entry.record.what, entry.record.about))
            .collect()
    }
}

#[tokio::test]
async fn agent_that_joins_has_the_labels_of_its_token_and_none_of_its_own() {
    let world = Registry::new();
    let token = [("role", "db")];
    assert_eq!(world.join("a", false, &token).await, Ok(labels(&token)));
    let kept = world.store.agent("a").unwrap();
    assert_eq!(
        (kept.labels, kept.labels_by),
        (labels(&token), Some("ada".into()))
    );
    let entry = ("agent a".to_owned(), "join".to_owned(), "a".to_owned());
    assert_eq!(world.audited(), [entry]);
    let detail = &world.store.audited(0, 9).unwrap()[0].record.detail;
    assert_eq!(detail["labels"], json!({"role": "db"}));
    assert_eq!(detail["token-by"], "ada");

    // A name that is taken needs a token that was made for it; its labels, by which a policy may limit it, stay.
    assert_eq!(world.join("a", false, &[]).await, Err("name".into()));
    let zone = world.join("a", true, &[("zone", "x")]).await;
    assert_eq!(zone, Ok(labels(&[("role", "db"), ("zone", "x")])));
    // Nothing is left for whoever comes under the name of a revoked agent.
    world.registry.revoke("a").unwrap();
    assert_eq!(world.join("a", false, &[]).await, Ok(Labels::new()));
}

#[tokio::test]
async fn renewal_is_recorded_with_both_serials_and_refused_without_the_old_one() {
    let world = Registry::new();
    world.join("a", false, &[("role", "db")]).await.unwrap();
    let old = AgentIdentity {
        name: "a".into(),
        serial: world.store.agent("a").unwrap().serials[0].clone(),
    };
    let new = AgentIdentity {
        name: "a".into(),
        serial: "02".into(),
    };
    let renewed = (world.registry)
        .issue(&new, CertificateReason::Renewal(&old), "00")
        .await;
    assert_eq!(renewed.unwrap(), labels(&[("role", "db")]));
    let entries = world.store.audited(0, 9).unwrap();
    let record = &entries.last().unwrap().record;
    assert_eq!(record.what, "renew");
    assert_eq!(
        record.detail,
        json!({"serial": "02", "authority": "00", "replaced": old.serial, "expired": false})
    );
    let strange = AgentIdentity {
        name: "a".into(),
        serial: "99".into(),
    };
    let refused = (world.registry)
        .issue(&new, CertificateReason::Renewal(&strange), "00")
        .await;
    assert_eq!(refused.unwrap_err().rule, "revoked");
}

#[tokio::test]
async fn labels_of_an_agent_are_changed_by_an_admin_and_recorded_first() {
    let world = Registry::new();
    world
        .join("a", false, &[("role", "db"), ("zone", "x")])
        .await
        .unwrap();
    let _link = connect(&world.fleet, "a", "10.0.0.7:40000", &[]).await;
    let change = LabelChange {
        set: labels(&[("team", "payments"), ("address", "10.1.1.1")]),
        remove: ["zone".to_owned()].into(),
    };
    let mut recorded = Vec::new();
    let relabelled = world
        .registry
        .relabel("a", "grace", &change, |before, after| {
            assert_eq!(
                world.store.agent("a").unwrap().labels,
                *before,
                "not changed yet"
            );
            recorded.push((before.clone(), after.clone()));
            Ok(())
        });
    let expected = labels(&[
        ("address", "10.1.1.1"),
        ("role", "db"),
        ("team", "payments"),
    ]);
    let kept = relabelled.unwrap();
    assert_eq!(
        (&kept.labels, kept.labels_by.as_deref()),
        (&expected, Some("grace"))
    );
    assert_eq!(
        recorded,
        [(labels(&[("role", "db"), ("zone", "x")]), expected.clone())]
    );
    assert_eq!(selectable(&world.fleet), expected);

    // What cannot be recorded is not done, and what is not allowed is not even recorded.
    let drop_all = LabelChange {
        set: Labels::new(),
        remove: expected.keys().cloned().collect(),
    };
    let full = || world.store.agent("nobody").map(|_| ()).unwrap_err();
    (world
        .registry
        .relabel("a", "eve", &drop_all, |_, _| Err(full())))
    .unwrap_err();
    for (name, value) in [("address", "10.0.0.0/8"), ("a b", "x"), ("role", "a\nb")] {
        let bad = LabelChange {
            set: labels(&[(name, value)]),
            ..LabelChange::default()
        };
        let refused = world
            .registry
            .relabel("a", "eve", &bad, |_, _| panic!("recorded"));
        refused.unwrap_err();
    }
    assert_eq!(selectable(&world.fleet), expected);
    world.registry.revoke("a").unwrap();
    let refused = world.registry.relabel("a", "eve", &drop_all, |_, _| Ok(()));
    refused.unwrap_err();
}

#[tokio::test]
async fn labels_route_grants_for_admins_only_and_is_recorded_with_before_and_after() {
    let world = TestController::new();
    let (admin, operator) = (
        world.token("ada", Role::Admin),
        world.token("eve", Role::Operator),
    );
    world
        .agent("db-1", &[("role", "db")], Manners::default())
        .await;
    let path = "/api/v1/agents/db-1/labels";
    let wanted = json!({"set": {"team": "payments"}, "remove": ["role"]});
    let (status, _) = world
        .ask("PATCH", path, &operator, Some(wanted.clone()))
        .await;
    assert_eq!(status, 403);
    let (status, agent) = world.ask("PATCH", path, &admin, Some(wanted)).await;
    assert_eq!(
        (status, &agent["labels"]),
        (200, &json!({"team": "payments"}))
    );
    assert_eq!(
        (&agent["labels_by"], &agent["facts"]["role"]),
        (&json!("ada"), &json!(null))
    );
    let entries = world.store.audited(0, 100).unwrap();
    let record = &entries.last().unwrap().record;
    assert_eq!(
        (record.what.as_str(), record.about.as_str()),
        ("label agent", "db-1")
    );
    assert_eq!(record.detail["before"], json!({"role": "db"}));
    assert_eq!(record.detail["after"], json!({"team": "payments"}));
    for bad in [
        json!({"set": {"address": "10.0.0.0/8"}}),
        json!({"set": {"a b": "c"}}),
        json!({"set": {"a": 1}}),
    ] {
        let (status, problem) = world.ask("PATCH", path, &admin, Some(bad)).await;
        assert_eq!(status, 400, "{problem}");
    }
    let nobody = world
        .ask(
            "PATCH",
            "/api/v1/agents/nobody/labels",
            &admin,
            Some(json!({})),
        )
        .await;
    assert_eq!(nobody.0, 404);

    let wanted = json!({"labels": {"role": "web"}});
    let (status, token) = world
        .ask("POST", "/api/v1/join-tokens", &admin, Some(wanted))
        .await;
    assert_eq!((status, &token["labels"]), (201, &json!({"role": "web"})));
    let bad = json!({"labels": {"address": "ff02::1"}});
    let (status, _) = world
        .ask("POST", "/api/v1/join-tokens", &admin, Some(bad))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn policy_condition_is_met_by_granted_labels_and_never_by_what_an_agent_says() {
    let rules = json!({"rules": [{"name": "nothing on payments", "labels": {"team": "payments"}, "faults": []}]});
    let world = TestController::with_policy(rules);
    let admin = world.token("ada", Role::Admin);
    let run = json!({
        "title": "t", "description": "d", "targets": {"t": {"labels": {"os": "debian"}}},
        "method": [{"type": "action", "name": "pause", "provider":
            {"type": "fault", "fault": "process-pause", "duration": "1s", "targets": "t"}}],
    });
    let plan = json!({"experiment": run.to_string()});
    let said = Manners {
        labels: vec![
            ("os".into(), "debian".into()),
            ("team".into(), "payments".into()),
        ],
        ..Manners::default()
    };
    world.agent("a", &[], said).await;
    let (status, planned) = world
        .ask("POST", "/api/v1/plans", &admin, Some(plan.clone()))
        .await;
    assert_eq!(status, 200, "{planned}");
    (world.service.fleet()).grant("a", confirmed(&[("team", "payments")]));
    let (status, refused) = world.ask("POST", "/api/v1/plans", &admin, Some(plan)).await;
    assert_eq!(status, 403, "{refused}");
}
