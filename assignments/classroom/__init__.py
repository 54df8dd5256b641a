"""What every hand-out carries beside its notebook: how answers are checked."""

from classroom.compare import Wrong, same, tensor_of_shape, the_same_mapping
from classroom.order import needs
from classroom.parts import Part, Student
from classroom.plug import plug

__all__ = [
    "Part",
    "Student",
    "Wrong",
    "needs",
    "plug",
    "same",
    "tensor_of_shape",
    "the_same_mapping",
]
