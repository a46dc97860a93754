//! Lists of instances: ranges of the views, merged newest first, page by page.
//!
//! The views only propose instances; whether one matches is decided by its record.

use super::disk::{Disk, Keys};
use super::error::StoreError;
use super::keys::{self, Position};
use super::record;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::time::Timestamp;

/// Items on a page at most.
pub(super) const MAX_LIMIT: usize = 1_000;
/// Records that are read for a page at most; the page is short then.
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
    /// Where to go on: [`Page::next`] of the page before, of the same query.
    pub cursor: Option<String>,
    /// Items on a page; at least 1, at most 1,000.
    pub limit: usize,
}

impl Default for Query {
    /// Everything, 50 a page.
    fn default() -> Self {
        Self {
            saga: None,
            statuses: Vec::new(),
            business_key: None,
            attribute: None,
            started_after: None,
            started_before: None,
            cursor: None,
            limit: 50,
        }
    }
}

impl Query {
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
pub(super) fn list(disk: &Disk, query: &Query) -> Result<Page<Instance>, StoreError> {
    let sagas = match &query.saga {
        Some(saga) => vec![saga.clone()],
        None => sagas(disk)?,
    };
    let from = query.started_after.map(Position::from_start);
    let to = [cursor(query)?, query.started_before.map(Position::from_start)].into_iter().flatten().min();
    if let Some(business_key) = &query.business_key {
        return by_business_key(disk, query, &sagas, business_key, to);
    }
    let mut ranges: Vec<_> =
        prefixes(query, &sagas).iter().map(|prefix| NewestFirst::new(disk, prefix, from, to)).collect();
    let limit = query.limit.clamp(1, MAX_LIMIT);
    let mut page = Page { items: Vec::new(), next: None };
    let mut read = 0;
    while let Some(position) = newest(&mut ranges)? {
        page.items.extend(instance(disk, query, position.instance())?);
        read += 1;
        if page.items.len() == limit || read == MAX_READ {
            page.next = newest(&mut ranges)?.map(|_| position.to_cursor());
            break;
        }
    }
    Ok(page)
}

/// The instances of a business key: one a saga, found by their ids, all on one page.
fn by_business_key(
    disk: &Disk,
    query: &Query,
    sagas: &[String],
    business_key: &str,
    to: Option<Position>,
) -> Result<Page<Instance>, StoreError> {
    let mut items = Vec::new();
    for saga in sagas {
        items.extend(instance(disk, query, InstanceId::new(saga, business_key))?);
    }
    let position = |instance: &Instance| Position::of(instance.started_at, instance.id);
    items.retain(|instance| to.is_none_or(|to| position(instance) < to));
    items.sort_by_key(|instance| std::cmp::Reverse(position(instance)));
    Ok(Page { items, next: None })
}

/// Reads an instance, if it matches.
fn instance(disk: &Disk, query: &Query, id: InstanceId) -> Result<Option<Instance>, StoreError> {
    let instance: Option<Instance> = record::read_json(disk, &keys::instance(id))?;
    Ok(instance.filter(|instance| query.matches(instance)))
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

/// Every saga that has instances, found by leaping from one to the next.
fn sagas(disk: &Disk) -> Result<Vec<String>, StoreError> {
    let mut sagas: Vec<String> = Vec::new();
    let mut start = vec![keys::BY_STATUS];
    while let Some(found) = disk.keys(start..vec![keys::BY_STATUS + 1]).next() {
        let key = found?;
        let saga = keys::saga_of(&key).ok_or_else(|| disk.corrupt(&key, "it names no saga"))?.to_owned();
        // Names end with a zero byte, so this is behind all keys of this saga.
        start = [&[keys::BY_STATUS], saga.as_bytes(), &[1]].concat();
        sagas.push(saga);
    }
    Ok(sagas)
}

/// One range of a view, from its end.
struct NewestFirst<'a> {
    keys: Option<Keys<'a>>,
    head: Option<Position>,
}

impl<'a> NewestFirst<'a> {
    fn new(disk: &'a Disk, prefix: &[u8], from: Option<Position>, to: Option<Position>) -> Self {
        let range = keys::between(prefix, from, to);
        let keys = (range.start < range.end).then(|| disk.keys(range));
        Self { keys, head: None }
    }

    /// The newest position that has not been taken.
    fn peek(&mut self) -> Result<Option<Position>, StoreError> {
        while self.head.is_none() {
            let Some(found) = self.keys.as_mut().and_then(DoubleEndedIterator::next_back) else {
                return Ok(None);
            };
            self.head = Position::of_key(&found?);
        }
        Ok(self.head)
    }
}

/// Takes the newest position of all ranges, from each that is there. `None` when all are empty.
fn newest(ranges: &mut [NewestFirst<'_>]) -> Result<Option<Position>, StoreError> {
    let mut newest = None;
    for range in ranges.iter_mut() {
        newest = newest.max(range.peek()?);
    }
    // An instance that has just changed its status may be in two ranges.
    for range in ranges.iter_mut().filter(|range| range.head == newest) {
        range.head = None;
    }
    Ok(newest)
}
