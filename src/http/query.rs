//! Parameters of the API's lists. A parameter that is unknown, given twice or unreadable is
//! refused: a filter that is silently ignored would show what was not asked for.

use super::error::ApiError;
use crate::saga::instance::Status;
use crate::saga::time::Timestamp;
use crate::store::{Order, Query};

/// Items on a page where none are asked for.
const DEFAULT_LIMIT: usize = 50;

/// Items on a page at most.
const MAX_LIMIT: usize = 500;

/// The parameters of a request that are not read yet.
pub(super) struct Parameters(Vec<(String, String)>);

/// Which page of a list is asked for.
pub(super) struct PageParameters {
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
}

impl Parameters {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Reads the filters of `/api/v1/sagas`.
    pub(super) fn into_query(mut self) -> Result<Query, ApiError> {
        let query = Query {
            saga: self.take("saga")?,
            statuses: self.take("status")?.map_or(Ok(Vec::new()), |list| statuses(&list))?,
            business_key: self.take("business_key")?,
            attribute: self.take("attribute")?.map(|pair| attribute(&pair)).transpose()?,
            started_after: self.time("after")?,
            started_before: self.time("before")?,
            order: Order::NewestFirst,
            limit: self.limit()?,
            cursor: self.take("cursor")?,
        };
        self.finish()?;
        Ok(query)
    }

    /// Reads the parameters of a list without filters.
    pub(super) fn into_page(mut self) -> Result<PageParameters, ApiError> {
        let page = PageParameters { limit: self.limit()?, cursor: self.take("cursor")? };
        self.finish()?;
        Ok(page)
    }

    /// Removes a parameter. An empty one counts as not given.
    fn take(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let (found, rest): (Vec<_>, Vec<_>) = self.0.drain(..).partition(|(given, _)| given == name);
        self.0 = rest;
        if found.len() > 1 {
            return Err(ApiError::bad_parameter(name, "is given more than once"));
        }
        Ok(found.into_iter().next().map(|(_, value)| value).filter(|value| !value.is_empty()))
    }

    fn time(&mut self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let problem = |text: &str| match Timestamp::parse(&text.replace(' ', "+")) {
            // A raw + in a query is a space.
            Some(_) => "has a space where its + should be: in a URL, + is written as %2B",
            None => "must be a time such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00",
        };
        let parse = |text: String| {
            Timestamp::parse(&text).ok_or_else(|| ApiError::bad_parameter(name, problem(&text)))
        };
        self.take(name)?.map(parse).transpose()
    }

    fn limit(&mut self) -> Result<usize, ApiError> {
        let Some(text) = self.take("limit")? else { return Ok(DEFAULT_LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| {
            ApiError::bad_parameter("limit", format!("must be a number from 1 to {MAX_LIMIT}"))
        })
    }

    /// Refuses what was not read.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            Some((name, _)) => Err(ApiError::bad_parameter(name, "is not known here")),
            None => Ok(()),
        }
    }
}

fn statuses(list: &str) -> Result<Vec<Status>, ApiError> {
    let parse = |word: &str| {
        let known = Status::ALL.into_iter().find(|status| status.as_str() == word);
        known.ok_or_else(|| {
            let all = Status::ALL.map(Status::as_str).join(", ");
            ApiError::bad_parameter("status", format!("holds {word:?}, it must be some of {all}"))
        })
    };
    list.split(',').map(parse).collect()
}

fn attribute(pair: &str) -> Result<(String, String), ApiError> {
    let split = pair.split_once(':').filter(|(name, _)| !name.is_empty());
    let (name, value) = split.ok_or_else(|| ApiError::bad_parameter("attribute", "must be name:value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn every_filter_is_read() {
        let query = parameters(&[
            ("saga", "order"),
            ("status", "running,parked"),
            ("business_key", "A-1"),
            ("attribute", "customer:a:b"),
            ("after", "2026-01-01T00:00:00Z"),
            ("before", "2026-01-01T01:00:00+01:00"),
            ("limit", "7"),
            ("cursor", "abc"),
        ]);
        let query = query.into_query().unwrap();
        assert_eq!(query.saga.as_deref(), Some("order"));
        assert_eq!(query.statuses, [Status::Running, Status::Parked]);
        assert_eq!(query.business_key.as_deref(), Some("A-1"));
        assert_eq!(query.attribute, Some(("customer".to_owned(), "a:b".to_owned())));
        assert_eq!(query.started_after, query.started_before);
        assert_eq!((query.limit, query.cursor.as_deref()), (7, Some("abc")));
        assert_eq!(parameters(&[("saga", "")]).into_query().unwrap().limit, DEFAULT_LIMIT);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases = [
            (("state", "running"), "\"state\" is not known here"),
            (("status", "running,done"), "\"status\" holds \"done\""),
            (("attribute", "customer"), "\"attribute\" must be name:value"),
            (("after", "yesterday"), "\"after\" must be a time such as"),
            (("after", "2026-01-31T13:00:00%2B01:00"), "\"after\" must be a time such as"),
            (("before", "2026-01-31T13:00:00 01:00"), "in a URL, + is written as %2B"),
            (("limit", "0"), "\"limit\" must be a number from 1 to 500"),
            (("limit", "501"), "\"limit\" must be a number from 1 to 500"),
        ];
        for (pair, message) in cases {
            let error = format!("{:?}", parameters(&[pair]).into_query().err().unwrap());
            assert!(error.replace('\\', "").contains(message), "{error}");
        }
        assert!(parameters(&[("saga", "a"), ("saga", "b")]).into_query().is_err());
        assert!(parameters(&[("saga", "a")]).into_page().is_err());
    }
}
