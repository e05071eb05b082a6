"""What one would write into a notebook's cells; a result as the last line of a cell shows itself.

Usage: python notebook.py HOST:PORT IMAGE.dcm
"""

from __future__ import annotations

import sys

from radserve import Classification, Client

# %% Connect, and see what is served
client = Client(sys.argv[1])
for served in client.models():
    print(served)

# %% Ask
image = sys.argv[2]
result = client.model("chest_xray_evidence", Classification).predict(image)
print(result)

# %% Where it looked
print(result.evidence)

# %% What a notebook shows of it
html = result._repr_html_()
print(len(html) > 0)

# %% Done
client.close()
