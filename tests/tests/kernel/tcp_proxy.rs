//! The fault `tcp-proxy` over real TCP, measured at the client's end and the server's. It wants no
//! rights, so these tests want none either.

use backburn_tests::network_fault::figure;
use backburn_tests::programs;
use backburn_tests::proxied::{PATIENCE, Proxied, echo, free, refused, serve};
use backburn_tests::wait::wait_within;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// From a word to its echo.
fn round(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    stream.write_all(b"word").expect("it is sent");
    stream.read_exact(&mut [0; 4]).expect("it comes back");
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Bytes of which each place is told from others.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|place| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Everything there and back, the end as well: whether it is the same.
fn passes_whole(stream: TcpStream, length: usize) {
    let sent = pattern(length);
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write_all(&sent).expect("it is sent");
            writer.shutdown(Shutdown::Write).expect("its end is sent");
        }
    });
    let mut came = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut came).expect("it comes back, whole");
    writing.join().expect("it is sent");
    assert_eq!(came.len(), sent.len());
    assert!(came == sent, "it is not what was sent");
}

/// What a read says where a connection is reset.
#[track_caller]
fn is_reset(stream: &mut TcpStream) {
    let error = stream
        .read(&mut [0; 64])
        .expect_err("it is reset, and not closed");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn tcp_proxy_without_effects_passes_everything_and_closes_properly() {
    let server = serve(echo);
    // Spliced; held; cut: each passes the same bytes.
    for harm in [
        json!({"to-client": {"slow-close": "1ms"}}),
        json!({"to-upstream": {"latency": "3ms", "jitter": "3ms"}, "to-client": {"latency": "2ms"}}),
        json!({"to-client": {"slicer": {"size": "5000B", "variation": "4999B"}},
               "to-upstream": {"bandwidth": "100MB", "latency": "1ms", "slicer": {"size": "1MB"}}}),
    ] {
        let proxy = Proxied::new(server, harm);
        let streams: Vec<TcpStream> = (0..3).map(|_| proxy.connect()).collect();
        let passing: Vec<_> = streams
            .into_iter()
            .map(|stream| std::thread::spawn(move || passes_whole(stream, 4 << 20)))
            .collect();
        for passed in passing {
            passed.join().expect("all of it passes");
        }
        let effect = proxy.end();
        assert_eq!(figure(&effect, "connections"), 3.0);
        assert_eq!(figure(&effect, "passed-bytes"), (6 * (4 << 20)) as f64);
        assert_eq!(figure(&effect, "harmed-connections"), 3.0);
    }
}

#[test]
fn tcp_proxy_latency_delays_each_way_and_the_close() {
    let server = serve(echo);
    let both = json!({"to-upstream": {"latency": "30ms"}, "to-client": {"latency": "50ms"}});
    let proxy = Proxied::new(server, both);
    let mut stream = proxy.connect();
    let times: Vec<Duration> = (0..15).map(|_| round(&mut stream)).collect();
    println!("80 ms: {times:?}");
    assert!(times.iter().all(|time| *time >= Duration::from_millis(80)));
    // A tenth of a second is what a busy machine may take; the benchmark tells the rest.
    assert!(median(times) < Duration::from_millis(180));
    let start = Instant::now();
    stream.shutdown(Shutdown::Write).expect("its end is sent");
    assert_eq!(stream.read(&mut [0; 4]).expect("it ends"), 0);
    assert!(start.elapsed() >= Duration::from_millis(80));
    assert_eq!(proxy.end()["acts"], true);
}

#[test]
fn tcp_proxy_latency_keeps_many_messages_in_flight() {
    let server = serve(echo);
    let proxy = Proxied::new(server, json!({"to-client": {"latency": "200ms"}}));
    let mut stream = proxy.connect();
    let start = Instant::now();
    for _ in 0..50 {
        stream.write_all(b"word").expect("it is sent");
        std::thread::sleep(Duration::from_millis(2));
    }
    stream.read_exact(&mut [0; 200]).expect("all come back");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    // One after the other they would have taken ten seconds.
    assert!(took < Duration::from_secs(5), "{took:?}");
    proxy.end();
}

#[test]
fn tcp_proxy_jitter_spreads_about_the_latency() {
    let server = serve(echo);
    let harm = json!({"to-client": {"latency": "60ms", "jitter": "40ms"}});
    let proxy = Proxied::new(server, harm);
    let mut stream = proxy.connect();
    let mut times: Vec<Duration> = (0..40).map(|_| round(&mut stream)).collect();
    times.sort();
    println!("60 ± 40 ms: {times:?}");
    assert!(times[0] >= Duration::from_millis(20), "{:?}", times[0]);
    // Of 40 draws some are in the lowest quarter, and some in the highest.
    assert!(times[0] < Duration::from_millis(60), "{:?}", times[0]);
    assert!(times[39] > Duration::from_millis(80), "{:?}", times[39]);
    proxy.end();
}

#[test]
fn tcp_proxy_bandwidth_is_kept() {
    let server = serve(|mut stream| {
        stream.write_all(&pattern(300_000)).ok();
    });
    let proxy = Proxied::new(server, json!({"to-client": {"bandwidth": "200KB"}}));
    let mut stream = proxy.connect();
    let start = Instant::now();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).expect("it comes whole");
    let took = start.elapsed();
    println!("{} bytes at 200 KB/s: {took:?}", came.len());
    assert!(came == pattern(300_000));
    assert!(took >= Duration::from_millis(1450), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    // The other way is as fast as ever.
    let start = Instant::now();
    let mut stream = proxy.connect();
    stream.write_all(&pattern(100_000)).ok();
    assert!(start.elapsed() < Duration::from_secs(1));
    proxy.end();
}

#[test]
fn tcp_proxy_slicer_sends_small_pieces_with_pauses() {
    let server = serve(|mut stream| {
        stream.write_all(&pattern(4000)).ok();
    });
    let slicer = json!({"size": 100, "variation": 50, "delay": "10ms"});
    let proxy = Proxied::new(server, json!({"to-client": {"slicer": slicer}}));
    let mut stream = proxy.connect();
    let start = Instant::now();
    let (mut came, mut pieces) = (Vec::new(), Vec::new());
    let mut room = [0; 4000];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        came.extend_from_slice(&room[..count]);
        pieces.push(count);
    }
    let took = start.elapsed();
    println!("{pieces:?} in {took:?}");
    assert!(came == pattern(4000));
    // 4000 bytes are 27 pieces of 150 at the least.
    assert!(took >= Duration::from_millis(260), "{took:?}");
    // Several pieces may be read as one by somebody who is slow, but not all of them.
    let small = pieces.iter().filter(|count| **count <= 150).count();
    assert!(small >= 5 && pieces.len() <= 81, "{pieces:?}");
    proxy.end();
}

#[test]
fn tcp_proxy_limit_passes_its_bytes_and_not_one_more() {
    for latency in [None, Some("5ms")] {
        let server = serve(|mut stream| {
            stream.write_all(&pattern(500_000)).ok();
        });
        let harm = json!({"limit-data": 123_457, "latency": latency});
        let proxy = Proxied::new(server, json!({"to-client": harm}));
        let mut stream = proxy.connect();
        let mut came = Vec::new();
        stream
            .read_to_end(&mut came)
            .expect("it is closed in order");
        assert!(came == pattern(123_457), "{}", came.len());
        let effect = proxy.end();
        assert_eq!(figure(&effect, "passed-bytes"), 123_457.0);
        assert_eq!(figure(&effect, "harmed-connections"), 1.0);
    }
}

#[test]
fn tcp_proxy_limit_not_reached_has_no_effect() {
    let server = serve(echo);
    let proxy = Proxied::new(server, json!({"to-client": {"limit-data": "1MB"}}));
    round(&mut proxy.connect());
    let effect = proxy.end();
    assert_eq!(effect["acts"], false, "{effect}");
    assert_eq!(figure(&effect, "connections"), 1.0);
}

#[test]
fn tcp_proxy_reset_reaches_both_ends_in_time() {
    let (tell, told) = mpsc::channel();
    let server = serve(move |mut stream| {
        let start = Instant::now();
        let end = stream.read(&mut [0; 4]).map_err(|error| error.kind());
        tell.send((end, start.elapsed())).ok();
    });
    let proxy = Proxied::new(server, json!({"reset": "300ms"}));
    let start = Instant::now();
    let mut stream = proxy.connect();
    is_reset(&mut stream);
    assert!(start.elapsed() >= Duration::from_millis(295));
    let (end, _) = told.recv_timeout(PATIENCE).expect("it ends there too");
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!(figure(&proxy.end(), "harmed-connections"), 1.0);
}

#[test]
fn tcp_proxy_slow_close_delays_the_close_only() {
    let server = serve(|mut stream| {
        stream.write_all(b"word").ok();
    });
    let proxy = Proxied::new(server, json!({"to-client": {"slow-close": "500ms"}}));
    let start = Instant::now();
    let mut stream = proxy.connect();
    stream.read_exact(&mut [0; 4]).expect("the word comes");
    let word = start.elapsed();
    assert_eq!(stream.read(&mut [0; 4]).expect("it ends"), 0);
    let end = start.elapsed();
    println!("word after {word:?}, end after {end:?}");
    assert!(end >= Duration::from_millis(500));
    assert!(word < Duration::from_millis(400) || word + Duration::from_millis(50) < end);
    assert_eq!(proxy.end()["acts"], true);
}

#[test]
fn tcp_proxy_timeout_passes_nothing_and_closes() {
    let (tell, told) = mpsc::channel();
    let server = serve(move |mut stream| {
        let mut came = Vec::new();
        stream.read_to_end(&mut came).ok();
        tell.send(came).ok();
    });
    let proxy = Proxied::new(server, json!({"to-upstream": {"timeout": "300ms"}}));
    let start = Instant::now();
    let mut stream = proxy.connect();
    stream.write_all(b"word").expect("it is taken");
    assert_eq!(stream.read(&mut [0; 4]).expect("it is closed in order"), 0);
    assert!(start.elapsed() >= Duration::from_millis(295));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Vec::new()));
    let effect = proxy.end();
    assert_eq!(figure(&effect, "passed-bytes"), 0.0);
    assert_eq!(effect["acts"], true);
}

#[test]
fn tcp_proxy_share_of_connections_is_chosen_by_the_seed() {
    const TRIES: u32 = 150;
    let server = serve(echo);
    let harmed = || -> Vec<u32> {
        let proxy = Proxied::new(server, json!({"reset": "0s", "share": 30}));
        let harmed: Vec<u32> = (0..TRIES)
            .filter(|_| {
                let mut stream = proxy.connect();
                // Where it was reset already, sending may say so first.
                let sent = stream.write_all(b"word");
                sent.and_then(|()| stream.read_exact(&mut [0; 4])).is_err()
            })
            .collect();
        let effect = proxy.end();
        assert_eq!(figure(&effect, "connections"), f64::from(TRIES));
        assert_eq!(figure(&effect, "harmed-connections"), harmed.len() as f64);
        harmed
    };
    let first = harmed();
    println!("{} of {TRIES} at 30 %", first.len());
    // 3.29 standard deviations either way.
    assert!((26..=64).contains(&first.len()), "{first:?}");
    assert_eq!(first, harmed());
}

#[test]
fn tcp_proxy_failure_of_one_end_reaches_the_other() {
    // Nobody upstream.
    let proxy = Proxied::new(free(), json!({"to-client": {"slow-close": "1ms"}}));
    is_reset(&mut proxy.connect());
    assert_eq!(proxy.end()["acts"], false);

    // Upstream resets: what it sent first arrives first, late as it is.
    let server = serve(|mut stream| {
        stream.write_all(b"word").ok();
        std::thread::sleep(Duration::from_millis(100));
        nix::sys::socket::setsockopt(
            &stream,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )
        .expect("it is a socket");
    });
    for harm in [json!({"latency": "300ms"}), json!({"slow-close": "1ms"})] {
        let proxy = Proxied::new(server, json!({"to-client": harm}));
        let mut stream = proxy.connect();
        stream.read_exact(&mut [0; 4]).expect("the word comes");
        is_reset(&mut stream);
        proxy.end();
    }
}

#[test]
fn tcp_proxy_reverted_resets_connections_and_frees_the_port() {
    let server = serve(echo);
    let harm = json!({"to-client": {"latency": "1ms"}});
    let proxy = Proxied::new(server, harm.clone());
    let mut stream = proxy.connect();
    round(&mut stream);
    let address = proxy.address;
    proxy.end();
    is_reset(&mut stream);
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(TcpListener::bind(address).expect("the port is free"));

    // Its own duration.
    let agent = Command::new(programs::backburn_agent());
    let proxy = Proxied::by(agent, server, harm.clone(), "300ms");
    let mut stream = proxy.connect();
    round(&mut stream);
    is_reset(&mut stream);
    assert_eq!(proxy.wait()["acts"], true);

    // Everybody who could put it back is killed.
    let proxy = Proxied::new(server, harm);
    let mut stream = proxy.connect();
    round(&mut stream);
    let address = proxy.address;
    for pid in proxy.everybody() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
    }
    is_reset(&mut stream);
    wait_within("somebody listens still", PATIENCE, || {
        TcpStream::connect(address).is_err()
    });
}

#[test]
fn tcp_proxy_without_a_connection_has_no_effect() {
    let proxy = Proxied::new(serve(echo), json!({"to-client": {"latency": "1ms"}}));
    let effect = proxy.end();
    assert_eq!(effect["acts"], false, "{effect}");
    assert_eq!(figure(&effect, "connections"), 0.0);
}

#[test]
fn tcp_proxy_serves_more_connections_than_the_default_file_limit() {
    let server = serve(echo);
    let proxy = Proxied::new(server, json!({"to-upstream": {"latency": "5ms"}}));
    let mut streams: Vec<TcpStream> = (0..250).map(|_| proxy.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"word").expect("it is sent");
    }
    for stream in &mut streams {
        stream.read_exact(&mut [0; 4]).expect("it comes back");
    }
    assert_eq!(figure(&proxy.end(), "harmed-connections"), 250.0);
}

#[test]
fn tcp_proxy_with_wrong_arguments_is_refused_and_nothing_is_touched() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port can be listened on");
    let taken = holder.local_addr().expect("it listens").to_string();
    let listen = free().to_string();
    let sound = |key: &str, value: Value| {
        let mut arguments = json!({
            "listen": listen, "upstream": "127.0.0.1:9", "to-client": {"latency": "1ms"}
        });
        arguments[key] = value;
        arguments
    };
    for (arguments, words) in [
        (
            sound("to-client", json!({"latency": "-5ms"})),
            vec!["$.to-client.latency"],
        ),
        (
            sound("to-client", json!({"latency": -5})),
            vec!["$.to-client.latency"],
        ),
        (
            sound("to-client", json!({"jitter": "5ms"})),
            vec!["$.to-client.jitter", "hint"],
        ),
        (sound("to-client", json!({"latncy": "5ms"})), vec!["latncy"]),
        (
            sound("to-client", json!(null)),
            vec!["no effect is given", "hint"],
        ),
        (sound("share", json!(101)), vec!["$.share"]),
        (
            sound("share", json!(0)),
            vec!["$.share", "no connection would be affected"],
        ),
        (
            sound("listen", json!(taken)),
            vec!["$.listen", "in use", "hint"],
        ),
        (
            sound("listen", json!("127.0.0.1")),
            vec!["$.listen", "is not an address with a port"],
        ),
        (
            sound("listen", json!("192.0.2.1:15432")),
            vec!["$.listen", "192.0.2.1:15432"],
        ),
        (
            sound("upstream", json!("127.0.0.1")),
            vec!["$.upstream", "has no port"],
        ),
        (
            sound("upstream", json!("no-such-host.invalid:80")),
            vec!["$.upstream", "no-such-host.invalid"],
        ),
        (
            sound("upstream", json!(listen)),
            vec!["$.upstream", "itself"],
        ),
        (
            sound("upstream", json!("127.0.0.1:22")),
            vec!["protects", "protect-ports"],
        ),
    ] {
        let (_, said) = refused(&arguments);
        for word in words {
            assert!(
                said.contains(word),
                "{arguments}: `{word}` is not in {said}"
            );
        }
        assert!(TcpStream::connect(&listen).is_err(), "nobody listens");
    }
    drop(holder);
    // All that is wrong is told at once.
    let (_, said) = refused(&json!({
        "listen": "here", "upstream": "there", "to-client": {"bandwidth": 0}, "share": 0
    }));
    for place in ["$.listen", "$.upstream", "$.to-client.bandwidth", "$.share"] {
        assert!(said.contains(place), "{place}: {said}");
    }
}

/// Where the tests are root: the same program as somebody who is nobody.
#[test]
fn tcp_proxy_needs_no_root() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("it is ours");
    let agent = folder.path().join("backburn-agent");
    std::fs::copy(programs::backburn_agent(), &agent).expect("it can be copied");
    let mut command = Command::new(&agent);
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534).current_dir("/");
    }
    let harm = json!({"to-client": {"latency": "20ms"}});
    let proxy = Proxied::by(command, serve(echo), harm, "60s");
    assert!(round(&mut proxy.connect()) >= Duration::from_millis(20));
    let helper = proxy.everybody()[3];
    let status = std::fs::read_to_string(format!("/proc/{helper}/status")).expect("it is alive");
    let capable = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(capable, Some("CapEff:\t0000000000000000"));
    let effect = proxy.end();
    assert_eq!(figure(&effect, "harmed-connections"), 1.0, "{effect}");
}
