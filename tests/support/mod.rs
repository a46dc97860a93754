//! What the tests over a real broker share.

use sagamq::throwaway::Node;

/// A throw-away broker of the test's own: about 5 s, and it ends with the value.
pub(crate) fn broker() -> Node {
    match Node::start() {
        Ok(node) => node,
        Err(error) => panic!("this test needs a throw-away RabbitMQ (`make test` sees to it): {error}"),
    }
}
