//! Lists of instances: ranges of the views and the memtable, merged in the order of the starts, page by page.
//!
//! These only propose instances; whether one matches is decided by the instance.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::cancel::Cancel;
use super::disk::{Disk, Keys};
use super::error::StoreError;
use super::keys::{self, Position};
use super::memtable::Recent;
use super::shared::Shared;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::time::Timestamp;

/// Items on a page at most.
pub(super) const MAX_LIMIT: usize = 1_000;
/// Instances that are read for a page at most; the page is short then.
const MAX_READ: usize = 10_000;

/// Which instances to list. What is left out does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of this saga.
    pub saga: Option<String>,
    /// Of one of these statuses; empty for all.
    pub statuses: Vec<Status>,
    /// Of this business key.
    pub business_key: Option<String>,
    /// With this attribute, of this value.
    pub attribute: Option<(String, String)>,
    /// Started at this time or later.
    pub started_after: Option<Timestamp>,
    /// Started before this time.
    pub started_before: Option<Timestamp>,
    /// By when they started.
    pub order: Order,
    /// Where to go on: [`Page::next`] of the page before, of the same query.
    pub cursor: Option<String>,
    /// Items on a page; at least 1, at most 1,000.
    pub limit: usize,
}

/// In which order instances are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Who started last comes first.
    #[default]
    NewestFirst,
    /// Who started first comes first.
    OldestFirst,
}

impl Default for Query {
    /// Everything, newest first, 50 a page.
    fn default() -> Self {
        Self {
            saga: None,
            statuses: Vec::new(),
            business_key: None,
            attribute: None,
            started_after: None,
            started_before: None,
            order: Order::NewestFirst,
            cursor: None,
            limit: 50,
        }
    }
}

impl Query {
    /// Whether it may match, as far as is known without reading its history.
    fn may_match(&self, recent: &Recent) -> bool {
        let head = &recent.head;
        self.saga.as_ref().is_none_or(|saga| **saga == *head.saga)
            && (self.statuses.is_empty() || self.statuses.contains(&head.status))
            && self.attribute.as_ref().is_none_or(|attribute| head.attributes.contains(attribute))
    }

    fn matches(&self, instance: &Instance) -> bool {
        let attribute = |(name, value): &(String, String)| instance.attributes.get(name) == Some(value);
        self.saga.as_ref().is_none_or(|saga| *saga == instance.saga)
            && (self.statuses.is_empty() || self.statuses.contains(&instance.status))
            && self.business_key.as_ref().is_none_or(|key| *key == instance.business_key)
            && self.attribute.as_ref().is_none_or(attribute)
            && self.started_after.is_none_or(|after| instance.started_at >= after)
            && self.started_before.is_none_or(|before| instance.started_at < before)
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// What is in this part.
    pub items: Vec<T>,
    /// The cursor to go on with; `None` at the end. There may be one even where this part is short.
    pub next: Option<String>,
}

/// Reads one page of what matches `query`.
pub(super) fn list(shared: &Shared, query: &Query, cancel: &Cancel) -> Result<Page<Instance>, StoreError> {
    cancel.check()?;
    let sagas = match &query.saga {
        Some(saga) => vec![saga.clone()],
        None => sagas(shared)?,
    };
    let (from, to) = range(query)?;
    if let Some(business_key) = &query.business_key {
        return by_business_key(shared, query, &sagas, business_key, (from, to));
    }
    // The memtable first: what moves to the tables meanwhile is proposed twice, not never.
    let recent = Proposals::of_memtable(shared, query, from, to);
    let prefixes = prefixes(query, &sagas);
    let tables =
        prefixes.iter().map(|prefix| Proposals::of_view(&shared.disk, prefix, query.order, from, to));
    let mut ranges: Vec<_> = [recent].into_iter().chain(tables).collect();
    let limit = query.limit.clamp(1, MAX_LIMIT);
    let mut page = Page { items: Vec::new(), next: None };
    let mut read = 0;
    while let Some(position) = next(&mut ranges, query.order)? {
        cancel.check()?;
        page.items.extend(instance(shared, query, position.instance())?);
        read += 1;
        if page.items.len() == limit || read == MAX_READ {
            page.next = next(&mut ranges, query.order)?.map(|_| position.to_cursor());
            break;
        }
    }
    Ok(page)
}

/// The instances of a business key: one a saga, found by their ids, all on one page.
fn by_business_key(
    shared: &Shared,
    query: &Query,
    sagas: &[String],
    business_key: &str,
    (from, to): (Option<Position>, Option<Position>),
) -> Result<Page<Instance>, StoreError> {
    let mut items = Vec::new();
    for saga in sagas {
        items.extend(instance(shared, query, InstanceId::new(saga, business_key))?);
    }
    let position = |instance: &Instance| Position::of(instance.started_at, instance.id);
    items.retain(|instance| {
        let at = position(instance);
        from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to)
    });
    items.sort_by_key(position);
    if query.order == Order::NewestFirst {
        items.reverse();
    }
    Ok(Page { items, next: None })
}

/// Reads an instance without its input, if it matches.
fn instance(shared: &Shared, query: &Query, id: InstanceId) -> Result<Option<Instance>, StoreError> {
    let instance = shared.without_input(id)?;
    Ok(instance.filter(|instance| query.matches(instance)))
}

/// The positions from which on and up to which there may be matches that are not on a page before.
fn range(query: &Query) -> Result<(Option<Position>, Option<Position>), StoreError> {
    let [from, to] = [query.started_after, query.started_before].map(|at| at.map(Position::from_start));
    Ok(match (cursor(query)?, query.order) {
        (None, _) => (from, to),
        (Some(last), Order::NewestFirst) => (from, Some(to.map_or(last, |to| to.min(last)))),
        (Some(last), Order::OldestFirst) => (from.max(Some(last.next())), to),
    })
}

/// Where the page before ended.
fn cursor(query: &Query) -> Result<Option<Position>, StoreError> {
    let Some(text) = &query.cursor else { return Ok(None) };
    Position::from_cursor(text).map(Some).ok_or_else(|| StoreError::Cursor(text.clone()))
}

/// The parts of the views that hold what may match.
fn prefixes(query: &Query, sagas: &[String]) -> Vec<Vec<u8>> {
    if let Some((attribute, value)) = &query.attribute {
        return sagas.iter().map(|saga| keys::by_attribute(saga, attribute, value)).collect();
    }
    let wanted = |status: &Status| query.statuses.is_empty() || query.statuses.contains(status);
    let statuses: Vec<_> = Status::ALL.into_iter().filter(wanted).collect();
    sagas.iter().flat_map(|saga| statuses.iter().map(|status| keys::by_status(saga, *status))).collect()
}

/// Every saga that has instances, or had some; in the view they are found by leaping from one to the next.
pub(super) fn sagas(shared: &Shared) -> Result<Vec<String>, StoreError> {
    let disk = &shared.disk;
    let mut sagas: BTreeSet<String> = shared.memtable().sagas().map(str::to_owned).collect();
    let mut start = vec![keys::BY_STATUS];
    while let Some(found) = disk.keys(start..vec![keys::BY_STATUS + 1]).next() {
        let key = found?;
        let saga = keys::saga_of(&key).ok_or_else(|| disk.corrupt(&key, "it names no saga"))?.to_owned();
        // Names end with a zero byte, so this is behind all keys of this saga.
        start = [&[keys::BY_STATUS], saga.as_bytes(), &[1]].concat();
        sagas.insert(saga);
    }
    Ok(sagas.into_iter().collect())
}

/// Positions in the order of a query.
struct Proposals<'a> {
    positions: Box<dyn Iterator<Item = Result<Position, StoreError>> + 'a>,
    head: Option<Position>,
}

impl<'a> Proposals<'a> {
    /// A range of a view.
    fn of_view(
        disk: &'a Disk,
        prefix: &[u8],
        order: Order,
        from: Option<Position>,
        to: Option<Position>,
    ) -> Self {
        let range = keys::between(prefix, from, to);
        let keys: Keys<'_> =
            if range.start < range.end { disk.keys(range) } else { Box::new(std::iter::empty()) };
        let position = |key: Result<sled::IVec, _>| key.map(|key| Position::of_key(&key)).transpose();
        let positions: Box<dyn Iterator<Item = _> + 'a> = match order {
            Order::NewestFirst => Box::new(keys.rev().filter_map(position)),
            Order::OldestFirst => Box::new(keys.filter_map(position)),
        };
        Self { positions, head: None }
    }

    /// What the memtable proposes.
    fn of_memtable(shared: &Shared, query: &Query, from: Option<Position>, to: Option<Position>) -> Self {
        let memtable = shared.memtable();
        let proposed = memtable.iter().filter(|(_, recent)| query.may_match(recent));
        let positions = proposed.map(|(id, recent)| Position::of(recent.head.started_at, id));
        let is_asked_for =
            |at: &Position| from.is_none_or(|from| *at >= from) && to.is_none_or(|to| *at < to);
        // Of many that are proposed, one page is read: to sort them all would take longer than to find them.
        let asked_for = positions.filter(is_asked_for);
        let positions: Box<dyn Iterator<Item = _> + 'a> = match query.order {
            Order::NewestFirst => Box::new(taken(asked_for.collect::<BinaryHeap<_>>())),
            Order::OldestFirst => {
                Box::new(taken(asked_for.map(Reverse).collect::<BinaryHeap<_>>()).map(|Reverse(at)| at))
            }
        };
        Self { positions: Box::new(positions.map(Ok)), head: None }
    }

    /// The next position that has not been taken.
    fn peek(&mut self) -> Result<Option<Position>, StoreError> {
        if self.head.is_none() {
            let Some(found) = self.positions.next() else { return Ok(None) };
            self.head = Some(found?);
        }
        Ok(self.head)
    }
}

/// What is in a heap, the largest first.
fn taken<T: Ord>(mut heap: BinaryHeap<T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || heap.pop())
}

/// Takes the next position of all ranges, from each that is there. `None` when all are empty.
fn next(ranges: &mut [Proposals<'_>], order: Order) -> Result<Option<Position>, StoreError> {
    let mut next: Option<Position> = None;
    for range in ranges.iter_mut() {
        let Some(head) = range.peek()? else { continue };
        next = Some(match order {
            Order::NewestFirst => next.map_or(head, |next| next.max(head)),
            Order::OldestFirst => next.map_or(head, |next| next.min(head)),
        });
    }
    // An instance that has just changed its status may be in two ranges.
    for range in ranges.iter_mut().filter(|range| range.head == next) {
        range.head = None;
    }
    Ok(next)
}
