# shellcheck shell=bash
# Puts on this machine what the chosen services need: Debian packages where a command is
# missing, and the jars of pom.xml in the cache. With everything there it needs no network.

# The name carries the hash of pom.xml, so another version never mixes with this one.
JARS=$CACHE/stack-$(sha256sum "$STACK/pom.xml" | cut -c1-12)

postgres_bin() { # folder of the newest installed server
  local found
  found=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) ||
    found=$(command -v initdb) || return 1
  [[ -n $found ]] && dirname "$found"
}

# Debian puts it where only root's PATH leads.
pgbouncer_bin() { PATH=$PATH:/usr/sbin command -v pgbouncer; }

install_packages() { # services...
  local missing=() service
  for service in "$@"; do
    case $service in
      redis) command -v redis-server >/dev/null || missing+=(redis-server) ;;
      postgres)
        postgres_bin >/dev/null || missing+=(postgresql)
        pgbouncer_bin >/dev/null || missing+=(pgbouncer)
        command -v openssl >/dev/null || missing+=(openssl)
        ;;
      kafka)
        command -v openssl >/dev/null || missing+=(openssl)
        command -v java >/dev/null || missing+=(default-jre-headless)
        [[ -d $JARS ]] || command -v mvn >/dev/null || missing+=(maven)
        ;;
      connect) command -v curl >/dev/null || missing+=(curl ca-certificates) ;;
    esac
  done
  install_missing "${missing[@]}"
}

install_missing() { # packages...
  local missing=("$@")
  ((${#missing[@]})) || return 0

  local install=(apt-get install -y --no-install-recommends "${missing[@]}") sudo=()
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (no apt-get here; install them by hand)"
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || die "missing packages, and no rights to install them. Run: sudo ${install[*]}"
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}"
}

require_java_17() {
  local version
  version=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/ *java.specification.version = //p')
  ((${version%%.*} >= 17)) || die "Kafka 4 needs Java 17 or newer, and \`java\` here is $version"
}

download_jars() {
  [[ ! -d $JARS ]] || return 0
  require_java_17
  say "downloading Kafka and Debezium to $JARS (once)"
  mkdir -p "$CACHE"
  local staging
  staging=$(mktemp -d "$CACHE/staging.XXXXXX")
  # Complete or absent: the final name appears only after the last file.
  if ! mvn --batch-mode --no-transfer-progress --strict-checksums --file "$STACK/pom.xml" \
    "-Dmaven.repo.local=$CACHE/maven" "-Dstack.out=$staging" package >"$RUN/logs/maven.log" 2>&1; then
    rm -rf "$staging"
    fail_with_log maven "Maven could not download what stack/pom.xml names"
  fi
  mv -T "$staging" "$JARS"
}
