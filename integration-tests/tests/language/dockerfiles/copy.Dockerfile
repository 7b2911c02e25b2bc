FROM scratch AS files
COPY a /in/
FROM busybox
WORKDIR /work
COPY a b/ ./
COPY ["with blank", "dir/"]
COPY *.c ?[ab] **/x /matched/
COPY --chown=nobody:1 --chmod=u=rwX,go=rX a /owned
COPY --chmod=0755 a /mode
COPY --link --from=files /in /linked/
COPY --from=0 /in/a /by-index
COPY --parents --exclude=*.md --exclude=tmp ./src/./lib /parents/
COPY --from=busybox /bin/sh /from-image
