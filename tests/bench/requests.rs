//! How many requests a second pass untouched through `http-fail`, beside a bare copy by tokio and HAProxy, in turns, from `wrk` to nginx.
//! Nothing is asserted.
//!
//! ```text
//! cargo bench -p backburn-tests --bench requests [ROUNDS]
//! ```

use backburn_tests::other_proxies::Other;
use backburn_tests::programs::backburn_agent;
use backburn_tests::proxied::free;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.as_slice() {
        [role, listen, upstream] if role == "tokio-copy" => copy(listen, upstream),
        words => compare(
            words
                .first()
                .map_or(9, |rounds| rounds.parse().expect("a number of rounds")),
        ),
    }
}

/// A bare copy, as short as it can be written with tokio.
fn copy(listen: &str, upstream: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("tokio starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .expect("it is free");
        while let Ok((mut client, _)) = listener.accept().await {
            let upstream = upstream.to_owned();
            tokio::spawn(async move {
                let mut upstream = tokio::net::TcpStream::connect(upstream).await?;
                client.set_nodelay(true)?;
                upstream.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await
            });
        }
    });
}

fn nginx(folder: &Path) -> (Other, SocketAddr) {
    let (at, folder) = (free(), folder.display());
    let config = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log /dev/null; events {{ worker_connections 1024; }}
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
                 fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                 server {{ listen {at}; location / {{ return 200 'hello'; }} }} }}"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, config).expect("a file can be written");
    let mut command = Command::new("nginx");
    command.args(["-c", &file]);
    (Other::start(command, at), at)
}

fn haproxy(folder: &Path, upstream: SocketAddr) -> (Other, SocketAddr) {
    let at = free();
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen all\n bind {at}\n server one {upstream}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).expect("a file can be written");
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(file);
    (Other::start(command, at), at)
}

/// Requests per second.
fn wrk(to: SocketAddr) -> f64 {
    let output = Command::new("wrk")
        .args(["-t1", "-c16", "-d2s", &format!("http://{to}/")])
        .output()
        .expect("`wrk` starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok())
        .expect("a rate")
}

fn compare(rounds: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_nginx, upstream) = nginx(folder.path());
    let copy_at = free();
    let mut copy = Command::new(std::env::current_exe().expect("a program knows its own file"));
    copy.args(["tokio-copy", &copy_at.to_string(), &upstream.to_string()]);
    let _copy = Other::start(copy, copy_at);
    let (_haproxy, haproxy_at) = haproxy(folder.path(), upstream);
    let ours = free();
    let mut agent = Command::new(backburn_agent());
    let arguments = json!({"listen": ours.to_string(), "upstream": upstream.to_string(), "path": "^/never", "status": 503});
    agent
        .args(["inject", "--state"])
        .arg(folder.path().join("state"))
        .args([
            "http-fail",
            "--duration",
            "10m",
            "--arguments",
            &arguments.to_string(),
        ]);
    let _agent = Other::start(agent, ours);
    let ways = [
        ("direct", upstream),
        ("http-fail", ours),
        ("tokio copy", copy_at),
        ("haproxy", haproxy_at),
    ];
    let mut figures = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (figures, (_, address)) in figures.iter_mut().zip(ways) {
            let figure = wrk(address);
            // The first ones find nothing in any cache.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    for figures in &mut figures {
        figures.sort_by(f64::total_cmp);
    }
    println!(
        "requests per second of 16 connections that pass untouched: median of {rounds} rounds in turns, least to most"
    );
    let ours = figures[1][rounds / 2];
    for (figures, (name, _)) in figures.iter().zip(ways) {
        let median = figures[rounds / 2];
        println!(
            "  {name:12} {median:8.0}  ({:.0} to {:.0})   http-fail is {:.2} of it",
            figures[0],
            figures[rounds - 1],
            ours / median
        );
    }
}
