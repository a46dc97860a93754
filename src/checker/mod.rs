//! The checker: decides over what was observed of a run whether everything held that must hold.
//!
//! It believes no word of the orchestrator that others can give: what came from outside is told by who
//! placed it, what was sent by a tap, what was done by the participants' ledgers, what was settled by a
//! listener on the wire. The store is what all of these are compared with. A simulation hands its
//! [`Evidence`] over in memory; [`Folder`] reads it from files.
//!
//! | file | what |
//! |---|---|
//! | `evidence` | [`Evidence`]: what was observed |
//! | `folder` | [`Folder`]: the same from files |
//! | `invariant` | [`Invariant`]: what must hold |
//! | `report` | [`Report`]: what was found |
//! | `case` | the evidence, sorted by instance |
//! | `starts` | I1, I2, I8, I13: what came in, and what became of it |
//! | `events` | I21, and of I13 what was made up: what an event answers |
//! | `numbers` | I22: numbers arrive as they were said |
//! | `effects` | I3, I4, I10, I12: what was done, by the ledgers |
//! | `undone` | I23: what was left as it is, and what is told of it |
//! | `aside` | I24, I25: what the broker puts aside, and who takes the messages |
//! | `messages` | I5, I7, I9, I15, I16: what was sent, by the tap |
//! | `histories` | I5, I6, I14, I15, I17: what was decided, fact by fact |
//! | `limits` | I20: what is out over all instances |
//! | `calls` | I19: what calls, and what is called |
//! | `legal` | I11: which fact may stand where |
//! | `time_line` | all that is known of one instance, in the order of time |

mod aside;
mod calls;
mod case;
mod effects;
mod events;
pub mod evidence;
mod folder;
mod histories;
mod invariant;
mod legal;
mod limits;
mod messages;
mod numbers;
mod report;
mod starts;
mod time_line;
mod undone;

pub use evidence::Evidence;
pub use folder::{Folder, FolderError};
pub use invariant::Invariant;
pub use report::{Report, Violation, check};
