//! What goes wrong with process, disk, connection and clock.

use super::super::process::{Process, ProcessError};
use super::World;
use crate::store::DiskFault;

impl World<'_> {
    pub(super) fn lose_consumer(&mut self) {
        self.broker.lose_consumer(self.now);
        self.listening = false;
        self.process.engine.listen(false, self.now);
        self.count("lost_consumer");
    }

    /// The next commit will fail, unless the process dies before.
    pub(super) fn fail_disk(&mut self) {
        let fault = [DiskFault::Full, DiskFault::Write, DiskFault::Sync][self.dice.below(3)];
        self.memory.fail_next(fault);
        self.disk_fault = Some(fault);
    }

    /// The power fails, in the middle of the commit if there is one.
    pub(super) fn cut_power(&mut self) -> Result<(), ProcessError> {
        if self.process.is_committing() {
            self.memory.fail_next(DiskFault::Write);
            // It fails, and nobody is left to hear of it.
            let _ = self.process.end_commit();
        }
        self.die("power_cut", true)
    }

    /// The process ends, without a word, and starts again.
    pub(super) fn die(&mut self, kind: &str, power: bool) -> Result<(), ProcessError> {
        self.count(kind);
        // A start syncs what is there, and reads it from the disk. What was written when the disk
        // failed, or the power did, may be there or not.
        let unsynced = self.memory.unsynced();
        let certain = !power && !std::mem::take(&mut self.disk_failed);
        let kept = if certain { unsynced } else { self.dice.below(unsynced + 1) };
        self.memory.cut(kept);
        self.disk_fault = None;
        self.crashed_at.get_or_insert(self.now);
        self.broker.lose_consumer(self.now);
        self.listening = false;
        let time = self.dice.up_to_ms(3000);
        self.pass(time);
        // With nothing to store, a start is not bothered by a disk that fails the next commit.
        let (process, instances) = Process::start(&self.memory, &self.setting.definitions)?;
        self.note(format_args!("started with {instances} instances"));
        self.process = process;
        if !self.calm && self.dice.one_in(8) {
            self.set_clock();
        }
        Ok(())
    }

    /// Somebody has set the wall clock, which a process reads once, at its start.
    pub(super) fn set_clock(&mut self) {
        let by = self.dice.up_to_ms(600_000);
        if self.dice.one_in(2) {
            self.count("clock_forward");
            self.pass(by);
        } else {
            self.count("clock_back");
            self.now = (self.now - by).max(self.process.latest());
        }
    }
}
