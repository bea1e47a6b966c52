//! Whose other rules packets come to: the nf_tables chains of the namespace that the thread is in.

use super::message::{self, KernelMessage, Message, Payload, flags};
use super::nftables::Table;
use super::socket::{Family, Socket};
use std::collections::BTreeSet;
use std::io;

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's kind.
const GET_CHAIN: u16 = 10 << 8 | 4;
const GET_RULE: u16 = 10 << 8 | 7;

/// A chain that packets come to at a hook, and that may refuse some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// Its table, with the table's family, and its name.
    pub name: String,
    /// Of the table: `NFPROTO_NETDEV` is 5, `NFPROTO_BRIDGE` 7.
    pub family: u8,
    /// The number of its hook in that family.
    pub hook: u32,
    /// Lower ones come first.
    pub priority: i32,
}

/// A chain of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChain {
    /// The name of the chain.
    pub name: String,
    /// Whether it is at a hook.
    pub hooked: bool,
    /// The devices that it is bound to.
    pub devices: Vec<String>,
}

impl Table<'_> {
    /// Its chains.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn chains(&self, socket: &Socket) -> io::Result<Vec<TableChain>> {
        let question = Message {
            what: format!("list the chains of table {} {}", self.layer, self.name),
            kind: GET_CHAIN,
            flags: flags::REQUEST | flags::DUMP,
            body: Payload::of(&[self.layer as u8, 0, 0, 0]),
        };
        socket.ask(&question, |chain| {
            let family = *chain.body.first()?;
            let chain = chain.body.get(message::NF_HEADER..)?;
            let table = message::text(message::attribute(chain, 1)?);
            if family != self.layer as u8 || table != self.name {
                return None;
            }
            let hook = message::attribute(chain, 4);
            // `NFTA_HOOK_DEV`, and `NFTA_HOOK_DEVS` with all of them.
            let one = hook.and_then(|hook| message::attribute(hook, 3));
            let all = hook.and_then(|hook| message::attribute(hook, 4));
            let all = message::attributes(all.unwrap_or_default()).into_iter();
            let names = one.into_iter().chain(all.map(|(_, name)| name));
            Some(TableChain {
                name: message::text(message::attribute(chain, 3)?),
                hooked: hook.is_some(),
                devices: names.map(message::text).collect(),
            })
        })
    }
}

/// Every chain at a hook that lets not everything through: by its policy, or because a rule of its table drops or rejects.
///
/// # Errors
/// What the kernel said.
pub fn refusing_chains() -> io::Result<Vec<ForeignChain>> {
    let socket = Socket::open(Family::Netfilter)?;
    let question = |what: &str, kind| Message {
        what: what.into(),
        kind,
        flags: flags::REQUEST | flags::DUMP,
        // `struct nfgenmsg`: any family.
        body: Payload::of(&[0; 4]),
    };
    let refusing: BTreeSet<(u8, String)> = socket
        .ask(&question("list the rules", GET_RULE), refuses)?
        .into_iter()
        .collect();
    let chains = socket.ask(&question("list the chains", GET_CHAIN), chain)?;
    Ok(chains
        .into_iter()
        .filter(|(chain, table, drops)| *drops || refusing.contains(&(chain.family, table.clone())))
        .map(|(chain, ..)| chain)
        .collect())
}

/// Whether addresses may be translated in the namespace of the thread: by chains of that type, or by legacy iptables.
///
/// # Errors
/// What the kernel said.
pub fn has_nat() -> io::Result<bool> {
    // `/proc/net` is the first thread's.
    let legacy = ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names.is_ok_and(|names| names.lines().any(|name| name == "nat"))
    });
    if legacy {
        return Ok(true);
    }
    let question = Message {
        what: "list the chains".into(),
        kind: GET_CHAIN,
        flags: flags::REQUEST | flags::DUMP,
        body: Payload::of(&[0; 4]),
    };
    let found = Socket::open(Family::Netfilter)?.ask(&question, |chain| {
        // `NFTA_CHAIN_TYPE`.
        let kind = message::attribute(chain.body.get(message::NF_HEADER..)?, 7)?;
        (message::text(kind) == "nat").then_some(())
    })?;
    Ok(!found.is_empty())
}

/// The table of a rule that drops or rejects.
fn refuses(rule: &KernelMessage<'_>) -> Option<(u8, String)> {
    let family = *rule.body.first()?;
    let rule = rule.body.get(message::NF_HEADER..)?;
    let table = message::text(message::attribute(rule, 1)?);
    let steps = message::attributes(message::attribute(rule, 4)?);
    steps
        .into_iter()
        .any(|(_, step)| is_refusal(step) == Some(true))
        .then_some((family, table))
}

fn is_refusal(step: &[u8]) -> Option<bool> {
    match message::text(message::attribute(step, 1)?).as_str() {
        "reject" => Some(true),
        "immediate" => {
            // `NFTA_IMMEDIATE_DATA`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`: `NF_DROP` is 0.
            let data = message::attribute(message::attribute(step, 2)?, 2)?;
            let verdict = message::attribute(data, 2)?;
            Some(message::attribute(verdict, 1)? == [0; 4])
        }
        _ => None,
    }
}

/// A chain at a hook, its table, and whether its policy is to drop.
fn chain(chain: &KernelMessage<'_>) -> Option<(ForeignChain, String, bool)> {
    let family = *chain.body.first()?;
    let chain = chain.body.get(message::NF_HEADER..)?;
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let table = message::text(message::attribute(chain, 1)?);
    let hook = message::attribute(chain, 4)?;
    let drops = message::attribute(chain, 5).and_then(number) == Some(0);
    let kind = match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    };
    let name = message::text(message::attribute(chain, 3)?);
    Some((
        ForeignChain {
            name: format!("{kind} {table} {name}"),
            family,
            hook: number(message::attribute(hook, 1)?)?,
            priority: number(message::attribute(hook, 2)?)? as i32,
        },
        table,
        drops,
    ))
}
