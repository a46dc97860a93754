//! One owner for each prefix: what keeps a second orchestrator, or another store, off our queues.
//!
//! | at the broker | what it says | how long |
//! |---|---|---|
//! | durable exchange `<prefix>.store` | which store the prefix belongs to | until `sagamq adopt` |
//! | exclusive queue `<prefix>.owner` | that a process has the prefix right now: the lock | as long as its connection |
//! | auto-delete exchange `<prefix>.owner` | who that process is, for people | as the queue, which it is bound to |
//!
//! Nothing is ever published to the two exchanges. Each says something by its argument `alternate-exchange`,
//! which the broker keeps on every node, never changes, compares in the same step in which it would make the
//! exchange, and names when it refuses another one. So there is no message that could be taken, lost or left
//! over, and no moment at which two processes both find a prefix free.
//!
//! The lock is on the connection that consumes: no message is ever delivered to a process without it.

use std::sync::Arc;
use std::time::Duration;

use crate::saga::id::StoreId;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::session::{self, AmqpError, answered, open_channel, refusal};
use super::topology::Topology;
use crate::config::{BrokerConfig, TopologyMode};
use crate::fault::{self, Bug};
use crate::health::Health;
use crate::store::{Reader, Sharing};

/// The first and the longest time between two looks whether the lock is free.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often it is told that the lock is waited for.
const TELL: Duration = Duration::from_secs(10);
/// Heartbeats of a dead owner after which the broker has surely noticed, and some slack.
const HEARTBEATS: u32 = 3;
/// That slack.
const SLACK: Duration = Duration::from_secs(5);

/// Why a process must not take the messages of a prefix. It has taken none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OwnerError {
    /// The prefix belongs to another store.
    #[error(
        "broker.prefix {prefix:?} belongs to store {owner}, {holder}, and this is store {store}: give this orchestrator \
         a prefix of its own, or start it with the store that the prefix belongs to; if that one is gone for good, \
         `sagamq adopt` gives the prefix to this store"
    )]
    Foreign {
        /// The prefix.
        prefix: String,
        /// The store that it belongs to.
        owner: String,
        /// The process that has it right now.
        holder: Holder,
        /// The store that wanted it.
        store: StoreId,
    },
    /// The prefix belongs to a store, and there is none here.
    #[error(
        "broker.prefix {prefix:?} belongs to store {owner}, {holder}, and here is no store yet, so none is made: mount \
         its volume, mend store.path, or restore a backup; if that store is gone for good, `sagamq adopt` gives the \
         prefix to a new one"
    )]
    Missing {
        /// The prefix.
        prefix: String,
        /// The store that it belongs to.
        owner: String,
        /// The process that has it right now.
        holder: Holder,
    },
    /// Another process has the prefix, and does not let go of it.
    #[error(
        "broker.prefix {prefix:?} is {holder}, which did not let go of it within {after:?}: stop that process; one \
         orchestrator has a prefix, and two copies of one store must never both run"
    )]
    Held {
        /// The prefix.
        prefix: String,
        /// The process.
        holder: Holder,
        /// How long was waited.
        after: Duration,
    },
    /// The user of the broker may not make what guards a prefix.
    #[error(
        "broker.prefix {prefix:?} cannot be guarded: {reason}; grant the user of broker.url to configure, write and \
         read all names that begin with \"{prefix}.\", or set broker.topology to none and keep other orchestrators off yourself"
    )]
    Forbidden {
        /// The prefix.
        prefix: String,
        /// In the broker's words.
        reason: String,
    },
}

/// The process that has a prefix, as it describes itself; none if there is none, or it cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(Option<String>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "in use by {text}"),
            None => f.write_str("in use by no process that could be named"),
        }
    }
}

/// What an orchestrator has to show for a prefix.
#[derive(Debug)]
pub struct Owner {
    prefix: String,
    store: StoreId,
    sharing: Sharing,
    /// Whether it must not go on unguarded.
    strict: bool,
    /// How long a start waits for the process before it.
    patience: Duration,
    health: Arc<Health>,
    refused: watch::Sender<Option<OwnerError>>,
}

impl Owner {
    /// Of the prefix that is set, for this store. Nothing is claimed yet.
    ///
    /// # Errors
    /// [`AmqpError::InvalidUrl`].
    pub fn new(config: &BrokerConfig, store: &Reader, health: Arc<Health>) -> Result<Self, AmqpError> {
        let heartbeat = session::heartbeat(config)?;
        // Without heartbeats, the system notices a dead peer, or nobody does.
        let heartbeat = if heartbeat.is_zero() { Duration::from_secs(20) } else { heartbeat };
        Ok(Self {
            prefix: config.prefix.clone(),
            store: store.identity().id,
            sharing: store.sharing(),
            strict: config.topology != TopologyMode::None,
            patience: heartbeat * HEARTBEATS + SLACK,
            health,
            refused: watch::Sender::new(None),
        })
    }

    /// Claims the prefix for the first time, after the topology was applied, and lets go of the lock again: what a
    /// start has to know before it does anything. Waits for a dead process that the broker still takes for alive.
    ///
    /// # Errors
    /// As [`session::probe`], and [`AmqpError::Owner`].
    pub async fn introduce(&self, config: &BrokerConfig, topology: &Topology) -> Result<(), AmqpError> {
        let claimed = session::reach(config, async |connection| {
            topology.apply(connection).await?;
            self.claim(connection, Some(self.patience)).await
        });
        claimed.await
    }

    /// Claims the prefix for as long as the connection lasts. Waits for another process with the same store, for
    /// `patience` or without an end.
    ///
    /// # Errors
    /// [`AmqpError::Owner`] if another one has it; the connection may be at fault, too.
    pub(crate) async fn claim(
        &self,
        connection: &Connection,
        patience: Option<Duration>,
    ) -> Result<(), AmqpError> {
        let claimed = match fault::planted(Bug::PrefixUnclaimed) {
            false => self.identify_and_lock(connection, patience).await,
            true => Ok(()),
        };
        self.health.contended.set(false);
        match claimed {
            Err(AmqpError::Owner(error @ OwnerError::Forbidden { .. })) if !self.strict => {
                warn!(%error, "nothing keeps a second orchestrator off this prefix");
            }
            claimed => claimed?,
        }
        self.health.disowned.set(false);
        Ok(())
    }

    /// Notes that the lock is lost, or is not had yet: nothing is published until it is had again.
    pub(crate) fn lose(&self) {
        self.health.disowned.set(true);
    }

    /// Ends the orchestrator: the prefix is not its own any more.
    pub(crate) fn refuse(&self, error: OwnerError) {
        self.refused.send_replace(Some(error));
    }

    /// Resolves once the prefix has become another's.
    pub async fn refused(&self) -> OwnerError {
        let mut refused = self.refused.subscribe();
        let refused = refused.wait_for(Option::is_some).await;
        refused.ok().and_then(|error| error.clone()).expect("the sender lives as long as self")
    }

    /// Gives the prefix to this store, whomever it belonged to; returns that. The process that had it must be gone.
    ///
    /// # Errors
    /// As [`session::probe`], and [`AmqpError::Owner`].
    pub async fn adopt(&self, config: &BrokerConfig) -> Result<Option<String>, AmqpError> {
        let adopted = session::reach(config, async |connection| {
            if self.sharing == Sharing::Exclusive {
                self.lock(connection, Some(Duration::ZERO)).await?;
            }
            let name = store_exchange(&self.prefix);
            let before = belongs_to(connection, &self.prefix).await?;
            let mine = self.store.to_string();
            if before.as_ref().is_some_and(|before| *before != mine) {
                delete(connection, &name).await?;
            }
            self.identify(connection).await?;
            Ok(before.filter(|before| *before != mine))
        });
        adopted.await
    }

    async fn identify_and_lock(
        &self,
        connection: &Connection,
        patience: Option<Duration>,
    ) -> Result<(), AmqpError> {
        self.identify(connection).await?;
        if self.sharing == Sharing::Exclusive {
            self.lock(connection, patience).await?;
            self.introduce_holder(connection).await;
        }
        Ok(())
    }

    /// Makes the prefix our store's, if it is nobody's.
    async fn identify(&self, connection: &Connection) -> Result<(), AmqpError> {
        let text = format!("{}{}", store_text(&self.prefix), self.store);
        let made = declare(connection, &store_exchange(&self.prefix), Kind::Store, Some(&text)).await;
        match made.map_err(|error| forbidden(error, &self.prefix)) {
            Err(AmqpError::Failed { source, .. }) if differs(&source) => {
                let owner =
                    current(&source, &store_text(&self.prefix)).unwrap_or_else(|| "(unknown)".to_owned());
                let (prefix, holder) = (self.prefix.clone(), holder(connection, &self.prefix).await);
                Err(OwnerError::Foreign { prefix, owner, holder, store: self.store }.into())
            }
            made => made,
        }
    }

    /// Gets the lock.
    async fn lock(&self, connection: &Connection, patience: Option<Duration>) -> Result<(), AmqpError> {
        let (begun, (mut pause, longest)) = (Instant::now(), LOOKS);
        let mut told_at = None;
        loop {
            let channel = open_channel(connection).await?;
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            let declaring =
                channel.queue_declare(owner_name(&self.prefix).into(), options, FieldTable::default());
            match answered("lock the prefix", declaring).await {
                Ok(_) => {
                    if told_at.is_some() {
                        info!(prefix = self.prefix, "the prefix is free");
                    }
                    return answered("close a channel", channel.close(200, "OK".into())).await;
                }
                Err(AmqpError::Failed { source, .. }) if is(&source, &AMQPSoftError::RESOURCELOCKED) => {}
                Err(error) => return Err(forbidden(error, &self.prefix)),
            }
            self.health.contended.set(true);
            if patience.is_some_and(|patience| begun.elapsed() + pause > patience) {
                let (prefix, after) = (self.prefix.clone(), begun.elapsed());
                return Err(OwnerError::Held {
                    prefix,
                    holder: holder(connection, &self.prefix).await,
                    after,
                }
                .into());
            }
            // A process that has just ended is no news.
            if pause >= longest && told_at.is_none_or(|at: Instant| at.elapsed() >= TELL) {
                let holder = holder(connection, &self.prefix).await;
                told_at = Some(Instant::now());
                warn!(
                    prefix = self.prefix, %holder,
                    "the prefix is locked for the same store: waiting until that process is gone, and the broker has noticed"
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Says who has the lock. It is for people: that it cannot be said is no obstacle.
    async fn introduce_holder(&self, connection: &Connection) {
        if let Err(error) = self.try_introduce_holder(connection).await {
            debug!(%error, "who has the prefix cannot be told to others");
        }
    }

    async fn try_introduce_holder(&self, connection: &Connection) -> Result<(), AmqpError> {
        let name = owner_name(&self.prefix);
        let text = format!("{}{}", holder_text(&self.prefix), this_process());
        let made = declare(connection, &name, Kind::Holder, Some(&text)).await;
        // What is there was left over by a broker that died.
        if let Err(AmqpError::Failed { source, .. }) = &made
            && differs(source)
        {
            delete(connection, &name).await?;
            declare(connection, &name, Kind::Holder, Some(&text)).await?;
        } else {
            made?;
        }
        let channel = open_channel(connection).await?;
        let options = QueueBindOptions::default();
        let key = String::new().into();
        let binding =
            channel.queue_bind(name.clone().into(), name.into(), key, options, FieldTable::default());
        answered("bind a queue", binding).await?;
        answered("close a channel", channel.close(200, "OK".into())).await
    }
}

/// Which store a prefix belongs to, as far as the broker knows. Asks over a connection of its own.
///
/// # Errors
/// As [`session::probe`].
pub async fn owner_of(config: &BrokerConfig) -> Result<Option<String>, AmqpError> {
    session::reach(config, async |connection| belongs_to(connection, &config.prefix).await).await
}

/// Refuses to make a store for a prefix that belongs to one.
///
/// # Errors
/// As [`session::probe`], and [`AmqpError::Owner`] if it does.
pub async fn refuse_new_store(config: &BrokerConfig) -> Result<(), AmqpError> {
    let asked = session::reach(config, async |connection| {
        let prefix = &config.prefix;
        let Some(owner) = belongs_to(connection, prefix).await? else { return Ok(()) };
        let holder = holder(connection, prefix).await;
        Err(OwnerError::Missing { prefix: prefix.clone(), owner, holder }.into())
    });
    asked.await
}

/// Name of the exchange that says which store a prefix belongs to.
pub(crate) fn store_exchange(prefix: &str) -> String {
    format!("{prefix}.store")
}

/// Name of the lock, and of the exchange that says who has it.
fn owner_name(prefix: &str) -> String {
    format!("{prefix}.owner")
}

/// What is before the store's id. A user who may write to what begins with the prefix may say it.
fn store_text(prefix: &str) -> String {
    format!("{prefix}.store.")
}

fn holder_text(prefix: &str) -> String {
    format!("{prefix}.owner: ")
}

fn this_process() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ");
    format!("pid {} on host {host} since {since}", std::process::id())
}

/// The store that a prefix belongs to.
async fn belongs_to(connection: &Connection, prefix: &str) -> Result<Option<String>, AmqpError> {
    said(connection, &store_exchange(prefix), Kind::Store, &store_text(prefix)).await
}

/// The process that has a prefix.
async fn holder(connection: &Connection, prefix: &str) -> Holder {
    let said = said(connection, &owner_name(prefix), Kind::Holder, &holder_text(prefix)).await;
    Holder(said.unwrap_or_else(|error| {
        debug!(%error, "who has the prefix cannot be asked");
        None
    }))
}

/// What an exchange says, if it is there.
async fn said(
    connection: &Connection,
    name: &str,
    kind: Kind,
    before: &str,
) -> Result<Option<String>, AmqpError> {
    let channel = open_channel(connection).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let fanout = ExchangeKind::Fanout;
    let looking = channel.exchange_declare(name.into(), fanout, passive, FieldTable::default());
    match answered("look for an exchange", looking).await {
        Ok(()) => answered("close a channel", channel.close(200, "OK".into())).await?,
        Err(AmqpError::Failed { source, .. }) if is(&source, &AMQPSoftError::NOTFOUND) => return Ok(None),
        Err(error) => return Err(error),
    }
    // To ask for the same without the argument is to be told of it.
    match declare(connection, name, kind, None).await {
        Err(AmqpError::Failed { source, .. }) if refusal(&source).is_some() => {
            Ok(Some(current(&source, before).unwrap_or_else(|| "(unknown)".to_owned())))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(Some("(unknown)".to_owned())),
    }
}

/// One of our two exchanges.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Store,
    Holder,
}

/// Makes an exchange, or finds that it is there and says the same.
async fn declare(
    connection: &Connection,
    name: &str,
    kind: Kind,
    text: Option<&str>,
) -> Result<(), AmqpError> {
    let channel = open_channel(connection).await?;
    let (durable, auto_delete) = (kind == Kind::Store, kind == Kind::Holder);
    let options = ExchangeDeclareOptions { durable, auto_delete, ..Default::default() };
    let mut arguments = FieldTable::default();
    if let Some(text) = text {
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(text.into()));
    }
    let declaring = channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, arguments);
    answered("declare an exchange", declaring).await?;
    answered("close a channel", channel.close(200, "OK".into())).await
}

async fn delete(connection: &Connection, name: &str) -> Result<(), AmqpError> {
    let channel = open_channel(connection).await?;
    let deleting = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
    answered("delete an exchange", deleting).await?;
    answered("close a channel", channel.close(200, "OK".into())).await
}

fn is(error: &lapin::Error, code: &AMQPSoftError) -> bool {
    refusal(error).is_some_and(|(found, _)| found == *code)
}

/// Whether something is there, and is not what was to be made.
fn differs(error: &lapin::Error) -> bool {
    is(error, &AMQPSoftError::PRECONDITIONFAILED)
}

fn forbidden(error: AmqpError, prefix: &str) -> AmqpError {
    let AmqpError::Failed { source, .. } = &error else { return error };
    match refusal(source) {
        Some((AMQPSoftError::ACCESSREFUSED, reason)) => {
            OwnerError::Forbidden { prefix: prefix.to_owned(), reason }.into()
        }
        _ => error,
    }
}

/// What the broker says that the argument is, without what is `before` it.
fn current(error: &lapin::Error, before: &str) -> Option<String> {
    quoted(&refusal(error)?.1, before)
}

/// `... but current is the value 'X' of type 'longstr'`, or `... but current is 'X'`. The broker cuts it off where it
/// is too long.
fn quoted(reason: &str, before: &str) -> Option<String> {
    let (_, after) = reason.split_once("but current is ")?;
    let (_, value) = after.split_once('\'')?;
    let value = value.split('\'').next().unwrap_or_default();
    Some(value.strip_prefix(before)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_from_the_words_of_each_broker() {
        let start = "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'shop.store' in vhost '/': ";
        for end in [
            "received none but current is the value 'shop.store.0b9c' of type 'longstr'",
            "received 'shop.store.1b9c' but current is 'shop.store.0b9c'",
            "received none but current is the value 'shop.store.0b9c",
        ] {
            assert_eq!(quoted(&format!("{start}{end}"), "shop.store.").as_deref(), Some("0b9c"), "{end}");
        }
        for odd in ["", "received 'direct' but current is 'fanout'", "but current is none"] {
            assert_eq!(quoted(odd, "shop.store."), None);
        }
    }

    #[test]
    fn a_holder_is_told_with_host_and_pid() {
        let text = Holder(Some(this_process())).to_string();
        assert!(text.starts_with(&format!("in use by pid {} on host ", std::process::id())), "{text}");
    }
}
