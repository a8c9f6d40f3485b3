//! What becomes of a boot when an act fails: it goes on, tries again, or says why it cannot.

use std::io;

use super::{
    Boot,
    error::{Doing, Why},
    step::{After, Step},
};
use crate::{flow::Cx, store::notes::Note};

impl Boot {
    pub(super) fn on_error(
        &mut self,
        step: Step,
        error: io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        match step {
            Step::MakeDirs(_) => Err(Why::Disk { doing: Doing::MakeFolders, error }),
            Step::ListTmp | Step::ListSegments => {
                Err(Why::Disk { doing: Doing::ListFolders, error })
            }
            Step::OpenIndex => Err(Why::Disk { doing: Doing::OpenIndex, error }),
            Step::OpenSegment(file) => {
                cx.tickets.forget_file(file);
                Err(Why::Disk { doing: Doing::ReadLog, error })
            }
            Step::Scan(file, walk) => self.unread(file, walk, error, cx),
            Step::ReadTail(tail) => {
                cx.close_file(tail.file);
                Err(Why::Withheld { doing: Doing::ReadLog, error })
            }
            Step::WriteTail(tail) => self.tail_failed(tail, error, cx),
            Step::Cut(file) | Step::Sync(file) => {
                cx.close_file(file);
                Err(Why::Disk { doing: Doing::SyncLog, error })
            }
            // The partition tries again, and makes no checkpoint before.
            Step::Mark(file, segment) => {
                cx.tickets.forget_file(file);
                self.owed_marks.push(segment);
                self.site.note(cx, &Note::NotMarked { segment, error: &error });
                self.walk_next_segment(cx)
            }
            Step::Unmark => {
                self.site.note(cx, &Note::NotUnmarked(&error));
                self.walk_next_segment(cx)
            }
            Step::ListObjects => self.unlisted(error, cx),
            Step::SyncObjects => self.unsynced_candidates(&error, cx),
            Step::OpenObject(file, candidate) => {
                cx.tickets.forget_file(file);
                self.unread_object(candidate, &error, cx)
            }
            Step::ReadObject(file, candidate) => {
                cx.close_file(file);
                self.unread_object(candidate, &error, cx)
            }
            // The object is gone all the same; its file takes space and nothing else.
            Step::Unlink(address) => {
                self.site.note(cx, &Note::FileNotUnlinked { address, error: &error });
                self.unlink_next(cx)
            }
        }
    }

    /// A folder of object files cannot be listed.
    fn unlisted(&mut self, error: io::Error, cx: &mut Cx<'_>) -> Result<After, Why> {
        match error.kind() {
            io::ErrorKind::NotFound => self.next_objects_dir(cx),
            io::ErrorKind::NotADirectory => {
                self.site.note(cx, &Note::NoFolder { folder: self.next_dir - 1 });
                self.next_objects_dir(cx)
            }
            // What is there is not known: it may be another time.
            _ => Err(Why::Withheld { doing: Doing::ListFolders, error }),
        }
    }
}
