"""The course as an nbgrader class: hand-outs, grading, feedback, marks."""
