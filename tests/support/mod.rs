//! What the tests over a real broker share.

use sagamq::throwaway::{Node, test_root};

/// A throw-away broker of the test's own: about 5 s, and it ends with the value. Its version is the
/// one that the tests are to run against.
pub(crate) fn broker() -> Node {
    match Node::start_in(test_root().as_deref()) {
        Ok(node) => node,
        Err(error) => panic!("this test needs a throw-away RabbitMQ (`make test` sees to it): {error}"),
    }
}
