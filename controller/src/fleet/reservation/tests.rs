//! Tests of reservations.

use super::*;
use backburn_experiments::wire::Report;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// An agent that has introduced itself. It disconnects when the stream is dropped.
pub(in crate::fleet) async fn connect(fleet: &Arc<Fleet>) -> tokio::io::DuplexStream {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let serving = Arc::clone(fleet);
    let peer = ([127, 0, 0, 1], 1).into();
    tokio::spawn(async move { serving.serve("a", peer, ours, || false).await });
    let mut changes = fleet.changes();
    changes.borrow_and_update();
    let hello = serde_json::to_string(&Report::Hello(Hello::default())).unwrap();
    theirs
        .write_all(format!("{hello}\n").as_bytes())
        .await
        .unwrap();
    changes.changed().await.unwrap();
    theirs
}

#[tokio::test]
async fn reconnect_waits_for_a_newer_connection() {
    let fleet = Arc::new(Fleet::new(HumanDuration::seconds(1)));
    let hangs = connect(&fleet).await;
    let mut reservation = Reservation::new(Arc::clone(&fleet), "run");
    let (events, _heard) = tokio::sync::mpsc::unbounded_channel();
    reservation
        .reserve(&["a".to_owned()].into(), &events)
        .unwrap();
    // What it said before is not what it has to say of what it was asked for since.
    let soon = Duration::from_millis(100);
    assert!(
        tokio::time::timeout(
            soon,
            reservation.reconnect("a", Instant::now(), None, &events)
        )
        .await
        .is_err()
    );
    let _comes = connect(&fleet).await;
    let patience = Duration::from_secs(30);
    let reconnect = tokio::time::timeout(
        patience,
        reservation.reconnect("a", Instant::now(), None, &events),
    )
    .await;
    assert!(reconnect.unwrap().is_ok());
    assert_eq!(fleet.list()[0].runs, ["run"]);
    drop((hangs, reservation));
    assert!(fleet.list()[0].runs.is_empty());
}

#[tokio::test]
async fn agent_that_is_revoked_while_it_connects_is_not_admitted() {
    let fleet = Arc::new(Fleet::new(HumanDuration::seconds(1)));
    let hangs = connect(&fleet).await;
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let (revoked, seen) = tokio::sync::watch::channel(false);
    let serving = Arc::clone(&fleet);
    let peer = ([127, 0, 0, 1], 2).into();
    let served = tokio::spawn(async move {
        let is_revoked = || *seen.borrow();
        serving.serve("a", peer, ours, is_revoked).await
    });
    let hello = serde_json::to_string(&Report::Hello(Hello::default())).unwrap();
    let hello = format!("{hello}\n");
    theirs.write_all(hello.as_bytes()).await.unwrap();
    // The first connection is asked for a sign of life meanwhile, and gives none.
    tokio::task::yield_now().await;
    revoked.send_replace(true);
    fleet.disconnect("a");
    // It is told, and the sending side closes.
    let mut told = Vec::new();
    theirs.read_to_end(&mut told).await.unwrap();
    drop(theirs);
    let why = served.await.unwrap();
    assert!(why.contains("no longer valid"), "{why}");
    assert_eq!(fleet.count(), 0);
    drop(hangs);
}

#[tokio::test]
async fn agent_that_is_draining_cannot_be_reserved_over_another_connection() {
    let fleet = Arc::new(Fleet::new(HumanDuration::seconds(1)));
    let _first = connect(&fleet).await;
    let retired = DrainGuard::of(&fleet, "a");
    let _second = connect(&fleet).await;
    let (events, _heard) = tokio::sync::mpsc::unbounded_channel();
    let mut reservation = Reservation::new(Arc::clone(&fleet), "run");
    assert!(reservation.inventory().unwrap().selectable.is_empty());
    let refused = reservation.reserve(&["a".to_owned()].into(), &events).err();
    assert_eq!(refused.unwrap().rule, "agent");
    drop(retired);
    assert_eq!(
        reservation
            .reserve(&["a".to_owned()].into(), &events)
            .unwrap()
            .len(),
        1
    );
}
