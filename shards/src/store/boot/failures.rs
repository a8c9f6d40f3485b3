//! What becomes of a boot when an act fails: it goes on, tries again, or says why it cannot.

use std::io;

use super::{
    Boot,
    step::{Progress, Step},
};
use crate::{flow::Cx, store::notes::Note};

impl Boot {
    pub(super) fn on_error(
        &mut self,
        step: Step,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        match step {
            Step::Scan(file, walk) => return self.unread(file, walk, error, cx),
            Step::OpenObject(file, candidate) => {
                cx.tickets.forget_file(file);
                return self.unread_object(candidate, error, cx);
            }
            Step::ReadObject(file, candidate) => {
                cx.close_file(file);
                return self.unread_object(candidate, error, cx);
            }
            Step::WriteTail(tail) => return self.tail_failed(tail, error, cx),
            Step::OpenSegment(file) => cx.tickets.forget_file(file),
            // What is there is not known: it may be another time.
            Step::ListObjects => self.unreadable = true,
            Step::Cut(file) | Step::Sync(file) => cx.close_file(file),
            Step::ReadTail(tail) => {
                self.unreadable = true;
                cx.close_file(tail.file);
            }
            _ => {}
        }
        Err(self.failed(&step, &error.to_string()))
    }

    /// After a failure: whether the node can go on without the partition. It must not when a newer
    /// program wrote the log, and with one volume only when nothing but a part of the log is lost,
    /// or all of it is of another partition.
    pub(in crate::store) fn may_be_absent(&self, cx: &Cx<'_>) -> bool {
        (cx.config.layout.volumes.len() > 1 || self.unreadable || self.foreign) && !self.newer
    }

    /// Goes on after an error that is no reason not to open.
    pub(super) fn pass_over(
        &mut self,
        step: &Step,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Option<Result<Progress, String>> {
        match step {
            Step::ListObjects if error.kind() == io::ErrorKind::NotFound => {
                Some(self.next_objects_dir(cx))
            }
            Step::ListObjects if error.kind() == io::ErrorKind::NotADirectory => {
                self.site.note(cx, &Note::NoFolder { folder: self.next_dir - 1 });
                Some(self.next_objects_dir(cx))
            }
            Step::SyncObjects => Some(self.unsynced_candidates(error, cx)),
            // The object is gone all the same; its file takes space and nothing else.
            Step::Unlink(address) => {
                self.site.note(cx, &Note::FileNotUnlinked { address: *address, error });
                Some(self.unlink_next(cx))
            }
            // The partition tries again, and makes no checkpoint before.
            Step::Mark(file, segment) => {
                cx.tickets.forget_file(*file);
                self.owed_marks.push(*segment);
                self.site.note(cx, &Note::NotMarked { segment: *segment, error });
                Some(self.walk_next_segment(cx))
            }
            Step::Unmark => {
                self.site.note(cx, &Note::NotUnmarked(error));
                Some(self.walk_next_segment(cx))
            }
            _ => None,
        }
    }

    pub(super) fn failed(&self, step: &Step, error: &str) -> String {
        let doing = match step {
            Step::MakeDirs(_) => "making its folders",
            Step::ListTmp | Step::ListSegments | Step::ListObjects => "listing its folders",
            Step::OpenIndex => "opening its index",
            Step::OpenSegment(_) | Step::Scan(..) => "reading its log",
            Step::ReadTail(_) => "reading its log",
            Step::WriteTail(_) | Step::Cut(_) | Step::Sync(_) => "syncing its log",
            Step::Mark(..) | Step::Unmark => "marking damage in its log",
            Step::SyncObjects | Step::OpenObject(..) | Step::ReadObject(..) => {
                "reading its object files"
            }
            Step::Unlink(_) => "removing deleted files",
            Step::Over => "booting",
        };
        format!("partition {}: {doing}: {error}", self.site.number)
    }

    pub(super) fn too_new(&mut self, version: u16) -> String {
        self.newer = true;
        let number = self.site.number;
        format!("partition {number}: its log has records of version {version}, from a newer ron")
    }
}
