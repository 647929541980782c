"""Batches to Arrow and back: what one object in the store holds, and how it is read without copying.

`schema` says what all batches of one source have in common and refuses the batch that differs; `codec` writes
consecutive batches into a `Frame` and reads them again; `layout` is the frame's form, shared by both; `dtypes` gives
every NumPy dtype an exact description. No Ray here: a frame is an ordinary object that pickles out of band.
"""

from rayfeed.frame.codec import FrameReader as FrameReader
from rayfeed.frame.codec import decode as decode
from rayfeed.frame.codec import encode as encode
from rayfeed.frame.layout import Frame as Frame
from rayfeed.frame.schema import FrameSchema as FrameSchema
from rayfeed.frame.schema import conform as conform
