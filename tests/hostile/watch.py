"""A process that calls functions and tells, as JSON, what they did that an audit hook sees.

python watch.py DIRECTORY '[["inspect", ["/a/checkpoint"], {}], ...]'
"""

import json
import os
import sys
from pathlib import Path

WATCHED = (
    *("compile", "exec", "import", "open", "pickle.find_class", "sys.addaudithook"),
    *("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser."),
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.", "ctypes."),
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
)
_RELATIVE_TO = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
}
"""Which arguments are paths, and which are the descriptors of the directories that they are looked up in."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _told(event, arguments):
    """The event as ``[name, words]``, where words are the paths and names that it is about."""
    match event, arguments:
        case "exec", (code, *_):
            return [event, [code.co_filename]]
        case "compile", (_, name, *_):
            return [event, [_word(name)]]
        case "import", (module, name, *_):
            return [event, [module, _word(name)]]
        case "open", (path, _, flags):
            writes = flags & _WRITING and not isinstance(path, int)
            # no directory is written to, but a file within it without a name
            is_nameless = writes and Path(os.fsdecode(path)).is_dir()
            return ["nameless" if is_nameless else "write" if writes else "read", [_word(path)]]
        case _:
            words = [_word(argument) for argument in arguments]
            for path, directory in _RELATIVE_TO.get(event, ()):
                words[path] = _looked_up(arguments[path], arguments[directory])
            return [event, words]


def _looked_up(path, directory):
    """The whole path of ``path``, which may be a descriptor, or relative to one."""
    if isinstance(path, int):
        return os.fsdecode(Path(f"/proc/self/fd/{path}").readlink())
    home = "" if directory < 0 else Path(f"/proc/self/fd/{directory}").readlink()
    return os.fsdecode(Path(home) / os.fsdecode(path))


def _word(value):
    try:
        return os.fsdecode(value)
    except TypeError:
        return repr(value)


def _crash_free(function):
    def call(directory):
        try:
            function(Path(directory))
        except (OSError, SystemExit):
            return "raised"
        return "returned"

    return call


@_crash_free
def _socket(_):
    import socket

    socket.socket().close()


@_crash_free
def _url(_):
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)


@_crash_free
def _pickle(_):
    import pickle

    pickle.loads(b"cbuiltins\nlen\n.")  # noqa: S301 (that is what has to be seen)


@_crash_free
def _compile(directory):
    compile("1", directory / "modeling_internvl_chat.py", "exec")


@_crash_free
def _exec(directory):
    code = compile("1", "elsewhere", "exec").replace(co_filename=str(directory / "modeling_internvl_chat.py"))
    exec(code)  # noqa: S102 (that is what has to be seen)


@_crash_free
def _import(directory):
    sys.path.insert(0, str(directory))
    try:
        import configuration_internvl_chat  # noqa: F401
    finally:
        sys.path.pop(0)


@_crash_free
def _extension(directory):
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    path = directory / "evil.so"
    try:
        module_from_spec(spec_from_file_location("evil", path, loader=ExtensionFileLoader("evil", str(path))))
    except ImportError:
        return


@_crash_free
def _subprocess(_):
    import subprocess

    subprocess.run(["true"], check=True)  # noqa: S607 (that is what has to be seen)


@_crash_free
def _system(_):
    os.system("true")  # noqa: S605, S607 (that is what has to be seen)


@_crash_free
def _posix_spawn(_):
    os.posix_spawn("/no such program", ["x"], {})


@_crash_free
def _execv(_):
    os.execv("/no such program", ["x"])  # noqa: S606 (that is what has to be seen)


@_crash_free
def _library(directory):
    import ctypes

    ctypes.CDLL(str(directory / "evil.so"))


@_crash_free
def _open(directory):
    (directory / "config.json").open("r+b").close()


@_crash_free
def _low_level_open(directory):
    os.close(os.open(directory.parent / "elsewhere", os.O_CREAT | os.O_WRONLY))


@_crash_free
def _rename(directory):
    (directory / "evil.so").rename(directory / "renamed")


@_crash_free
def _remove(directory):
    (directory / "renamed").unlink(missing_ok=True)


@_crash_free
def _mkdir(directory):
    (directory.parent / "made").mkdir()


CONTROLS = {
    "socket": _socket,
    "url": _url,
    "pickle": _pickle,
    "compile": _compile,
    "exec": _exec,
    "import": _import,
    "extension": _extension,
    "subprocess": _subprocess,
    "system": _system,
    "posix_spawn": _posix_spawn,
    "execv": _execv,
    "library": _library,
    "open": _open,
    "low level open": _low_level_open,
    "rename": _rename,
    "remove": _remove,
    "mkdir": _mkdir,
}
"""What the hook has to see, so that its silence means something."""


def _opened_by_its_whole_path(opened):
    """os.open, of which the hook is not told the directory that a path is relative to."""

    def by_whole_path(path, *more, dir_fd=None, **options):
        return opened(path if dir_fd is None else _looked_up(path, dir_fd), *more, **options)

    return by_whole_path


def main():
    events, results, watching = [], [], [True]

    def hook(event, arguments):
        if watching and event.startswith(WATCHED):
            told = _told(event, arguments)
            if told[0] != "read":
                events.append(told)

    sys.addaudithook(hook)
    os.open = _opened_by_its_whole_path(os.open)
    for name, arguments, options in json.loads(sys.argv[1]):
        if name in CONTROLS:
            results.append(CONTROLS[name](*arguments))
        else:
            import internvl_bridge

            results.append(type(getattr(internvl_bridge, name)(*arguments, **options)).__name__)
    watching.clear()
    sys.stdout.write(json.dumps({"events": events, "results": results, "modules": sorted(sys.modules)}))


if __name__ == "__main__":
    main()
