//! Which live connections are of chosen flows, and their end: the same choice as the rules make for packets.

use super::{CLOSED, Endpoint, FlowMatch, PacketFilter, Protocol};
use crate::netlink::{
    Expression, Socket, Table, TableFamily, TcpConnection, is_own_address, tcp_connections,
};
use std::io;
use std::net::SocketAddr;

impl PacketFilter {
    /// The live TCP connections of the flows, in the namespace that the thread is in.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn established(&self) -> io::Result<Vec<TcpConnection>> {
        let mut cgroups = Vec::new();
        for cgroup in &self.flows.cgroups {
            cgroups.extend(cgroup.numbers()?);
        }
        let found = tcp_connections()?.into_iter();
        Ok(found
            .filter(|connection| self.flows.matches(connection, &cgroups))
            .collect())
    }

    /// Closes the live TCP connections of the flows for good, and leaves their number with the owned tables, where whoever
    /// looks finds it. Returns it.
    ///
    /// # Errors
    /// What the kernel said; some may be closed already.
    pub fn close_established(&self, owner: &Socket) -> io::Result<u64> {
        let mut closed = 0;
        for connection in self.established()? {
            closed += u64::from(connection.close()?);
        }
        let table = Table {
            layer: TableFamily::Inet,
            name: &self.table,
        };
        owner.transact(&[
            table.chain(CLOSED),
            table.rule(CLOSED, &[Expression::CounterFrom(closed)], CLOSED),
        ])?;
        Ok(closed)
    }
}

impl FlowMatch {
    fn matches(&self, connection: &TcpConnection, cgroups: &[u64]) -> bool {
        let TcpConnection { here, there, .. } = connection;
        let ends = [*here, *there];
        let is = |end: &Endpoint, address: SocketAddr| {
            let ip = address.ip();
            end.networks.iter().any(|network| network.contains(ip))
                && end.port.is_none_or(|port| port.contains(address.port()))
        };
        let any = |of: &[Endpoint], address| of.is_empty() || of.iter().any(|end| is(end, address));
        let way = |from: SocketAddr, to: SocketAddr| {
            any(&self.from, from)
                && any(&self.to, to)
                && (self.ports.is_empty() || self.ports.iter().any(|port| port.contains(to.port())))
        };
        let spared = ends.iter().any(|end| {
            self.except.iter().any(|except| is(except, *end))
                || self
                    .spare_ports
                    .iter()
                    .any(|port| port.contains(end.port()))
        }) || self
            .spare_link
            .is_some_and(|link| ends == [link.here, link.there] || ends == [link.there, link.here]);
        let of_process = self.cgroups.is_empty()
            || connection
                .cgroup
                .is_some_and(|number| cgroups.contains(&number));
        matches!(self.protocol, Protocol::Tcp | Protocol::Any)
            && !spared
            && of_process
            && (way(*here, *there) || way(*there, *here))
            && (self.loopback || !is_own_address(there.ip()))
    }
}
