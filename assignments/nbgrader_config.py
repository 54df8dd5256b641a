"""What nbgrader needs to know about the course; its own commands read it as well."""

import os
from pathlib import Path

# nbgrader puts the function there.
c = get_config()  # type: ignore[name-defined]  # noqa: F821

here = Path(__file__).resolve().parent
c.CourseDirectory.course_id = "metarec"
c.CourseDirectory.root = str(here)
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "*.zip"]

c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("not done yet")'}
c.ClearSolutions.text_stub = "*Write your answer here.*"
c.ClearSolutions.enforce_metadata = True

# Cells that only show what an answer does are for the student's eyes, not for marks.
c.Execute.skip_cells_with_tag = "demo"
c.Execute.timeout = 60  # seconds a cell
c.Execute.interrupt_on_timeout = True
c.LimitOutput.max_lines = 200

# Hidden checks live beside this file and never in a hand-out.
os.environ["PYTHONPATH"] = str(here)
os.environ.setdefault("OMP_NUM_THREADS", "1")
seed = here / "seed.txt"
if seed.exists():
    os.environ["METAREC_GRADING_SEED"] = seed.read_text().strip()
