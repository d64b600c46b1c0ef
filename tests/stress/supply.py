"""What the pinned environment consists of: licenses, a bill of materials (CycloneDX) and known vulnerabilities.

    python tests/stress/supply.py --out supply

writes licenses.json, sbom.cdx.json and, where a vulnerability database can be reached, vulnerabilities.json for the
environment of the Python that runs it. The three tools are installed into a temporary environment of their own.
"""

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ('pip-licenses==5.5.5', 'cyclonedx-bom==7.5.0', 'pip-audit==2.10.1')
# The first family whose pattern is in a license's text: of a license with several parts, the strictest.
FAMILIES = {
    'proprietary': 'proprietary|nvidia',
    'weak copyleft': r'\bMPL\b|Mozilla|\bLGPL|Lesser General',
    'strong copyleft': r'\bA?GPL|General Public',
    'permissive': r'\bMIT\b|BSD|Apache|ISC\b|PSF|Python Software|Unlicense|HPND|CMU|zlib|0BSD|OLDAP',
}


def family(text):
    return next((name for name, pattern in FAMILIES.items() if re.search(pattern, text, re.I)), 'not stated')


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def check(done):
    if done.returncode:
        sys.exit(f'error: {Path(done.args[0]).name} failed: {done.stderr.strip().splitlines()[-1]}')
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder for the three files')
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder) / 'bin'
        check(run(sys.executable, '-m', 'venv', folder))
        check(run(tools / 'pip', 'install', '--quiet', *TOOLS))

        listed = json.loads(check(run(tools / 'pip-licenses', '--python', sys.executable, '--format=json')))
        packages = [
            dict(
                name=one['Name'], version=one['Version'], license=one['License'].splitlines()[0],
                family=family(one['License']),
            )
            for one in listed
        ]  # fmt: skip
        (out / 'licenses.json').write_text(json.dumps(packages, indent=1) + '\n')
        counts = collections.Counter(one['family'] for one in packages)
        print(f'{len(packages)} packages:', ', '.join(f'{number} {name}' for name, number in counts.most_common()))
        for one in sorted(packages, key=lambda one: one['family']):
            if one['family'] != 'permissive':
                print(f'  {one["family"]}: {one["name"]} {one["version"]} ({one["license"]})')

        sbom = out / 'sbom.cdx.json'
        check(run(tools / 'cyclonedx-py', 'environment', '--output-reproducible', '-o', sbom, sys.executable))
        components = json.loads(sbom.read_text())['components']
        print(f'{sbom}: {len(components)} components')

        pinned = Path(folder) / 'pinned.txt'
        pinned.write_text(
            '\n'.join(f'{one["name"]}=={one["version"]}' for one in packages if one['name'] != 'mogacore')
        )
        for service in ('pypi', 'osv'):
            report = out / 'vulnerabilities.json'
            done = run(
                tools / 'pip-audit', '--vulnerability-service', service, '--no-deps', '--disable-pip', '-r', pinned,
                '--format', 'json', '--output', report,
            )  # fmt: skip
            answers = json.loads(report.read_text())['dependencies'] if report.exists() else None
            audited = [one for one in answers or [] if 'vulns' in one]
            if audited:
                print(f'vulnerabilities in the database of {service}: {len(audited)} packages looked up')
                for one in audited:
                    for found in one['vulns']:
                        print(f'  {one["name"]} {one["version"]}: {found["id"]}')
                return
            report.unlink(missing_ok=True)
            reason = 'it answers for no package' if answers else done.stderr.strip().splitlines()[-1]
            print(f'vulnerabilities: not done with the database of {service}: {reason[:160]}')


if __name__ == '__main__':
    main()
