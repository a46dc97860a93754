//! What is listened to and what is sent: exchanges, subscriptions, and what a message carries.

use super::*;
use crate::saga::exchange::Exchange;
use crate::saga::problem::closest;

/// Whose messages count.
pub(super) fn users(written: Option<&Located<definition::Users>>) -> plan::Users {
    plan::Users(written.map(|users| users.0.clone()).unwrap_or_default())
}

impl Compiler<'_> {
    /// The exchanges that the definition says something of.
    pub(super) fn described(&self) -> Vec<Exchange> {
        let exchanges = self.definition.exchanges.0.iter();
        let described = |(name, of): &(Located<String>, definition::Exchange)| Exchange {
            name: name.value.clone(),
            kind: of.kind(),
            declare: of.declare.as_ref().is_none_or(|declare| declare.value),
            make: of.make(),
        };
        exchanges.map(described).collect()
    }

    /// Nothing is said of exchanges that nothing names. What an exchange hands on to is named by it.
    pub(super) fn unused_exchanges(&mut self, plan: &Plan) {
        let mut named = plan.exchanges();
        named.extend(plan.described.iter().filter_map(Exchange::alternate).map(str::to_owned));
        for (name, _) in &self.definition.exchanges.0 {
            if named.contains(&name.value) {
                continue;
            }
            let hint = match closest(name, named.iter().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "leave it out: this definition neither listens nor publishes there".to_owned(),
            };
            let message = format!("nothing names exchange {:?}", name.value);
            self.refuse(Code::UnusedExchange, name.at, message, Some(hint));
        }
    }

    pub(super) fn subscription(&self, on: &definition::Subscription) -> plan::Subscription {
        on.compiled(&self.definition.exchanges)
    }

    /// What a message carries beside its body, where anything is said of it.
    pub(super) fn extras(
        &mut self,
        command: &definition::Command,
        names: &Names<'_>,
    ) -> Option<Box<plan::Extras>> {
        let text = |text: &Option<Located<String>>| text.as_ref().map(|text| text.value.as_str().into());
        let header = |(name, value): &(Located<String>, Located<Node>)| {
            (Arc::from(name.value.as_str()), self.template(value, names))
        };
        let extras = plan::Extras {
            headers: command.headers.0.iter().map(header).collect(),
            priority: command.priority.as_ref().map(|priority| priority.value),
            expires: command.expires.as_ref().map(|expires| expires.value.0),
            content_type: text(&command.content_type),
            kind: text(&command.kind),
        };
        let is_plain = extras.headers.is_empty()
            && extras.priority.is_none()
            && extras.expires.is_none()
            && extras.content_type.is_none()
            && extras.kind.is_none();
        (!is_plain).then(|| Box::new(extras))
    }
}
