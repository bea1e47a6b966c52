//! The small web service that the demo injects faults into: a supervisor that holds the listener, and worker processes that
//! accept its connections. The supervisor replaces a worker that dies. A worker that is killed loses only the request that it
//! was answering, since waiting connections belong to the listener.
//!
//! Every process of the service has `demo-service` as its first argument. An agent protects Backburn's own processes, and
//! recognizes by that argument that these may be affected.

use clap::{Args, Subcommand};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Pid, getpid, getppid};
use serde_json::json;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The first argument of every process of the service.
pub const SUBCOMMAND: &str = "demo-service";

/// How long the supervisor waits before it replaces a dead worker: long enough to observe that it is gone.
const RESTART_AFTER: Duration = Duration::from_millis(100);

/// The web service of the demo.
#[derive(Debug, Args)]
pub struct DemoServiceCommand {
    #[command(subcommand)]
    role: DemoProcess,
}

#[derive(Debug, Subcommand)]
enum DemoProcess {
    /// Hold the listener, start the workers and replace those that die
    Supervise {
        /// Number of workers
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
        workers: u8,
        /// Port on 127.0.0.1; 0 chooses a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Process id of the parent, with which this process ends
        #[arg(long)]
        parent: Option<i32>,
    },
    /// Answer requests of the listener on standard input
    Worker {
        /// Process id of the parent, with which this process ends
        #[arg(long)]
        parent: i32,
    },
}

/// Runs one process of the service until it receives SIGTERM or SIGINT.
pub fn main(service: &DemoServiceCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match service.role {
                DemoProcess::Supervise {
                    workers,
                    port,
                    parent,
                } => supervise(workers, port, parent).await,
                DemoProcess::Worker { parent } => work(parent).await,
            }
        })
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: demo service: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the kernel to end this process with its parent.
///
/// The kernel ties this to the thread that started the process, so that the parent must start it from a thread that lives as
/// long as the process should: the supervisor has only one.
fn end_with(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before the kernel was asked.
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(io::Error::other("the parent has ended"))
    }
}

async fn supervise(workers: u8, port: u16, parent: Option<i32>) -> io::Result<()> {
    // The name that selectors and `ps` see.
    prctl::set_name(c"demo-service")?;
    if let Some(parent) = parent {
        end_with(parent)?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let address = listener.local_addr()?;
    let listener = Arc::new(listener);
    let (stop, stopped) = watch::channel(false);
    let mut places = JoinSet::new();
    for _ in 0..workers {
        let first = start_worker(&listener)?;
        places.spawn(keep_worker(first, Arc::clone(&listener), stopped.clone()));
    }
    let mut out = io::stdout();
    writeln!(
        out,
        "{}",
        json!({"address": address, "pid": getpid().as_raw(), "workers": workers})
    )?;
    out.flush()?;

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // This ends on its own only if a worker cannot be replaced.
        Some(place) = places.join_next() => place.map_err(io::Error::other).flatten(),
    };
    stop.send_replace(true);
    while let Some(place) = places.join_next().await {
        place.map_err(io::Error::other).flatten()?;
    }
    ended
}

fn start_worker(listener: &TcpListener) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .args([SUBCOMMAND, "worker", "--parent", &getpid().to_string()])
        .stdin(Stdio::from(listener.as_fd().try_clone_to_owned()?))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Keeps one worker running until told to stop, then kills it and waits for its end.
async fn keep_worker(
    mut worker: Child,
    listener: Arc<TcpListener>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            _ = stopped.changed() => return worker.kill().await,
            died = worker.wait() => { died?; }
        }
        tokio::select! {
            _ = stopped.changed() => return Ok(()),
            () = tokio::time::sleep(RESTART_AFTER) => {}
        }
        worker = start_worker(&listener)?;
    }
}

async fn work(parent: i32) -> io::Result<()> {
    // The name that selectors and `ps` see.
    prctl::set_name(c"demo-worker")?;
    end_with(parent)?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let served = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            // Each connection is closed after its answer, so that no later request waits for a worker that is gone.
            let answers = service_fn(move |request| std::future::ready(answer(&request, &served)));
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answers);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client went away");
            }
        });
    }
}

/// Answers with the worker's process id and the number of requests that it has answered.
fn answer(
    request: &Request<Incoming>,
    served: &AtomicU64,
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    if request.uri().path() != "/" {
        return Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Full::default());
    }
    let served = served.fetch_add(1, Ordering::Relaxed) + 1;
    let body = json!({"worker": getpid().as_raw(), "served": served}).to_string();
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))
}
