"""metarec: personalised recommendation by meta-learning.

Three maps, one idea: a recommender turns features into a rating, a task-learner turns
a prior and a few ratings into one user's weights, and a meta-learner turns many users
into that prior. Each module holds one of them; each is built in a chapter of the book.
"""

__version__ = "0.1.0"
