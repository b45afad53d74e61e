import json
def contrast(job, out):
    (out/"report.html").write_text("x"); (out/"summary.json").write_text(json.dumps({"sweep": job.name, "aliases": {}}))
    return {}
