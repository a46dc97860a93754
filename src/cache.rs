//! The cache: instances in memory, ahead of the store by what is gathered or being committed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::saga::fact::Recorded;
use crate::saga::id::InstanceId;
use crate::saga::instance::Instance;
use crate::saga::message::weight;
use crate::saga::plan::Plan;

/// Instances kept in memory beside those that wait for a commit.
const INSTANCES: usize = 20_000;
/// About how many bytes of inputs are taken into memory before instances that may be read again are let go.
const BYTES: usize = 64 << 20;

/// Instances by their ids.
#[derive(Default)]
pub(crate) struct Cache {
    instances: HashMap<InstanceId, Cached>,
    /// Bytes of inputs that came in since instances were last let go.
    brought_in: usize,
}

/// An instance in memory.
pub(crate) struct Cached {
    pub(crate) instance: Instance,
    pub(crate) plan: Arc<Plan>,
    /// Whether it counts as open in what is taken or gathered.
    pub(crate) open: bool,
    /// Whether it counts for its definition there.
    pub(crate) holds: bool,
    /// "Published" facts that are applied but not yet stored. Losing them costs a repeat of the same
    /// message, nothing else.
    pub(crate) marks: Vec<Recorded>,
    /// The last gathering that changed it.
    pub(crate) changed_in: u64,
}

impl Cache {
    pub(crate) fn has(&self, id: InstanceId) -> bool {
        self.instances.contains_key(&id)
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<&Cached> {
        self.instances.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Cached> {
        self.instances.get_mut(&id)
    }

    /// Takes in an instance, as it is in the store or as it begins: then nothing counts it yet.
    pub(crate) fn put(&mut self, instance: Instance, plan: Arc<Plan>) {
        self.brought_in += weight(&instance.input)
            + instance.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let (id, stored) = (instance.id, instance.revision > 0);
        let (open, holds) = (stored && instance.is_open(), stored && instance.needs_definition());
        let cached = Cached { instance, plan, open, holds, marks: Vec::new(), changed_in: 0 };
        self.instances.insert(id, cached);
    }

    /// Lets go of an instance, if it is as the store has it at `revision`. False if it is not; true if it is
    /// not in memory at all.
    pub(crate) fn let_go_at(&mut self, id: InstanceId, revision: u64) -> bool {
        let is_clean = |cached: &Cached| cached.instance.revision == revision && cached.marks.is_empty();
        let gone = self.get(id).is_none_or(is_clean);
        if gone {
            self.instances.remove(&id);
        }
        gone
    }

    /// Lets go of what a commit has made superfluous: those `touched` that have come to their end, and if
    /// there are too many, all that are as the store has them. `gathering` was the last to be committed.
    pub(crate) fn let_go(&mut self, touched: &[InstanceId], gathering: u64) {
        for id in touched {
            if self.get(*id).is_some_and(|cached| !cached.instance.is_open() && cached.is_clean(gathering)) {
                self.instances.remove(id);
            }
        }
        if self.instances.len() > INSTANCES || self.brought_in > BYTES {
            self.brought_in = 0;
            self.instances.retain(|_, cached| !cached.is_clean(gathering));
        }
    }
}

impl Cached {
    fn is_clean(&self, gathering: u64) -> bool {
        self.changed_in <= gathering && self.marks.is_empty()
    }
}
