//! Proxies of requests between a test and its upstream.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::Helper;
use crate::look::{helper_of, plan};
use backburn_agent::helpers::HelperSpec;
use backburn_agent::plan::LocalHost;
use backburn_agent::processes::ProcessTable;
use backburn_experiments::wire::Effect;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const LONG: u64 = 60_000;

/// A port of the loopback that is free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A proxy between a free port and an upstream.
pub struct Proxied {
    role: HelperSpec,
    helper: Helper,
    pub port: u16,
}

impl Proxied {
    pub fn start(fault: &str, upstream: u16, mut arguments: Value) -> Self {
        let port = free_port();
        arguments["listen"] = json!(format!("127.0.0.1:{port}"));
        arguments["upstream"] = json!(format!("127.0.0.1:{upstream}"));
        let role = helper_of(&plan(&LocalHost::default(), fault, arguments).unwrap());
        let helper = Helper::start(&role, LONG);
        helper.ready();
        Proxied { role, helper, port }
    }

    fn effect(&self) -> Effect {
        let spec = self.role.helper();
        spec.effect(self.helper.id.pid, &ProcessTable::default())
    }

    pub fn figure(&self, name: &str) -> f64 {
        self.effect().figures[name]
    }

    pub fn acts(&self) -> bool {
        self.effect().acts
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// What comes back when this is sent and no more.
    pub fn talk(&self, sent: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut came = String::new();
        stream.read_to_string(&mut came).unwrap();
        came
    }

    /// Kills the helper, as anything might.
    pub fn kill(&mut self) {
        self.helper.kill();
    }
}
